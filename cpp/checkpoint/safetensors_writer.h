// Writing one safetensors file piece by piece: the header is known from the tensors' names, dtypes and shapes, so no tensor need be
// in memory as a whole.
//
//   SafetensorsWriter writer(path, {{"w", DType::kBF16, {4, 8}}, {"b", DType::kBF16, {4}}});
//   for (const TensorSpec& tensor : writer.tensors()) writer.write(bytes_of(tensor.name));   // any number of pieces, in this order
//   const FileDigest digest = writer.finish();                                               // fsynced
//
// The header holds `__metadata__: {"format": "pt"}` (what transformers asks for) and is padded to 8 bytes. Tensors are laid out by
// falling element size, then in the given order, so each begins at a multiple of its element size. UserError for a name that is
// not UTF-8, occurs twice or is `__metadata__`.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/file_writer.h"
#include "checkpoint/slice.h"

namespace mw {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  std::string stored = "";  // the file's name for the dtype where it is not ours: "F8_E4M3", with kU8 for its size

  int64_t num_bytes() const;  // InternalError on a negative dim or overflow
  bool operator==(const TensorSpec&) const = default;
};

// The order in which tensors stand in a file.
std::vector<TensorSpec> in_file_order(std::vector<TensorSpec> tensors);

// Length field, JSON and padding. `tensors` in file order.
std::string safetensors_header(const std::vector<TensorSpec>& tensors, const std::map<std::string, std::string>& metadata);

class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  void write(std::span<const std::byte> bytes);
  FileDigest finish();  // InternalError unless exactly the bytes of all tensors were written

 private:
  std::vector<TensorSpec> tensors_;
  FileWriter file_;
  int64_t missing_bytes_ = 0;
};

}  // namespace mw
