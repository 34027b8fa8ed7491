// The tensors of a GGUF file under the names, shapes and element order that Hugging Face's checkpoints of the same model have.
//
//   const GgufModel model(GgufFiles::open("llama-3-8b-Q4_K_M.gguf"));
//   model.read("model.layers.0.self_attn.q_proj.weight", rows, DType::kBF16, memory);   // decoded, rows in Hugging Face's order
//   gguf_config(model.files())                                                          // the config.json to go with it
//
// What llama.cpp's converter did is undone: query and key rows of the Llama family are put back, 1 is taken off Gemma's norms, stacked
// experts are taken apart (or joined, where Hugging Face stacks them otherwise). docs/formats/gguf.md has the table.
// UserError: an architecture that is not understood, a tensor that the architecture does not have, shapes that do not fit together.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "checkpoint/gguf_files.h"
#include "checkpoint/rearranged.h"
#include "checkpoint/tensor_source.h"

namespace mw {

struct GgufMapped {
  Rearranged seen;
  std::vector<GgufPlace> parts;
  bool is_as_stored = false;  // one part, element for element
};

// By Hugging Face name.
std::map<std::string, GgufMapped> map_gguf_tensors(const GgufFiles& files);

class GgufModel : public TensorSource {
 public:
  explicit GgufModel(GgufFiles files);

  const std::string& path() const override { return files_.path(); }
  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return tensors_.contains(name); }
  TensorInfo info(const std::string& name) const override;
  using TensorSource::read;
  void read(const std::string& name, const Slice& slice, DType as, void* to) const override;

  const GgufFiles& files() const { return files_; }

 private:
  const GgufMapped& mapped(const std::string& name) const;

  GgufFiles files_;
  std::map<std::string, GgufMapped> tensors_;
  std::vector<std::string> names_;
};

}  // namespace mw
