// Named tensors that can be read by slice, whatever file holds them and however it stores them: a folder of safetensors files
// (folder.h), the same with published quantisation hidden (dequantized.h), a GGUF file under Hugging Face names (gguf_model.h).
//
//   const std::unique_ptr<TensorSource> weights = open_weights(path);              // open_weights.h
//   for (const std::string& name : weights->names()) ...
//   weights->read("model.embed_tokens.weight", rows, DType::kBF16, memory);        // by slice, converted
//
// All of it may be called by many threads at once. A read touches only the pages of the file that it needs and gives them back.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/slice.h"

namespace mw {

struct TensorInfo {
  Shape shape;
  std::string stored;             // as the file says it: "F32", "F8_E4M3", "MXFP4", "Q4_K"
  std::optional<DType> reads_as;  // its own, BF16 where it is quantised; nothing where no dtype of ours holds it (I64, ...)
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual const std::string& path() const = 0;
  virtual const std::vector<std::string>& names() const = 0;  // sorted
  virtual bool contains(const std::string& name) const = 0;
  virtual TensorInfo info(const std::string& name) const = 0;  // UserError with the nearest name

  // Copies a slice, packed in row-major order, into `to`, converted to `as` (float to float; otherwise the dtypes must be equal).
  virtual void read(const std::string& name, const Slice& slice, DType as, void* to) const = 0;
  void read(const std::string& name, DType as, void* to) const { read(name, whole(info(name).shape), as, to); }

 protected:
  TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(const TensorSource&) = delete;
  TensorSource& operator=(TensorSource&&) = default;
};

}  // namespace mw
