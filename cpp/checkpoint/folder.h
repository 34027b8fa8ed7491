// A folder of safetensors files in the Hugging Face layout: one `model.safetensors`, or `model-0000i-of-0000n.safetensors` with
// `model.safetensors.index.json` (with stem "state": the optimizer's, in `trainer/`).
//
//   const TensorFolder folder = TensorFolder::open("Llama-3.2-1B");
//   for (const std::string& name : folder.names()) ...
//   folder.read("model.embed_tokens.weight", rows, DType::kF32, memory);   // by slice, converted
//
// UserError when neither file is there, the index is malformed, names a file that is missing or lies outside the folder, or a
// tensor is not in the file that the index gives for it. Files may be links (Hugging Face's cache is made of them).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_source.h"

namespace mw {

inline constexpr int64_t kMaxIndexBytes = 256 << 20;

// The weight map of an index file's text: tensor name -> file name. Strict; every file name is checked to be plain.
std::map<std::string, std::string> parse_tensor_index(std::string_view text, std::string_view what);

// What `<stem>.safetensors.index.json` says: the bytes of all tensors, and which file holds which.
std::string tensor_index_text(const std::map<std::string, std::string>& weight_map, int64_t total_bytes);

class TensorFolder : public TensorSource {
 public:
  static TensorFolder open(const std::string& folder, const std::string& stem = "model");
  static TensorFolder open_file(const std::string& path);  // one safetensors file of any name

  const std::string& path() const override { return path_; }
  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return places_.contains(name); }
  TensorInfo info(const std::string& name) const override;
  const StoredTensor& tensor(const std::string& name) const;  // UserError with the nearest name
  const SafetensorsFile& file_of(const std::string& name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  int64_t num_bytes() const;  // of all tensors

  using TensorSource::read;
  void read(const std::string& name, const Slice& slice, DType as, void* to) const override;

 private:
  struct Place {
    size_t file;
    const StoredTensor* tensor;
  };
  const Place& place(const std::string& name) const;

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::map<std::string, Place> places_;
};

}  // namespace mw
