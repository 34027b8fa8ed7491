// The GGUF files of one model: a single one, or the parts NAME-00001-of-0000N.gguf that llama.cpp's tools split a large model into.
//
//   const GgufFiles files = GgufFiles::open("model-00001-of-00003.gguf");
//   files.header().text("general.architecture");     // the first part has the metadata
//   files.find("blk.0.attn_q.weight")                // its file and its record
#pragma once
#include <map>
#include <string>
#include <vector>

#include "checkpoint/gguf.h"

namespace mw {

struct GgufPlace {
  const GgufFile* file = nullptr;
  const GgufTensor* tensor = nullptr;
};

class GgufFiles {
 public:
  // UserError: a part other than the first, a part that is missing or of another model, a tensor that is in two parts.
  static GgufFiles open(const std::string& path);
  static GgufFiles of(GgufFile file);  // UserError when it is one of several parts

  const std::string& path() const { return files_.front().path(); }
  const GgufHeader& header() const { return files_.front().header(); }
  const std::map<std::string, GgufPlace>& tensors() const { return tensors_; }
  const GgufTensor* find(const std::string& name) const;     // nullptr when absent
  std::vector<float> values(const std::string& name) const;  // of a small tensor that is there

 private:
  void add_tensors();

  std::vector<GgufFile> files_;
  std::map<std::string, GgufPlace> tensors_;
};

}  // namespace mw
