#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"
#include "base/printable.h"
#include "checkpoint/safetensors.h"

namespace mw {

int64_t TensorSpec::num_bytes() const {
  int64_t bytes = dtype_bytes(dtype);
  for (const int64_t size : shape) {
    MW_CHECK(size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes), "tensor ", in_quotes(name), " of shape ", shape_text(shape));
  }
  return bytes;
}

std::vector<TensorSpec> in_file_order(std::vector<TensorSpec> tensors) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorSpec& a, const TensorSpec& b) { return dtype_bytes(a.dtype) > dtype_bytes(b.dtype); });
  return tensors;
}

std::string safetensors_header(const std::vector<TensorSpec>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string text = header.dump();  // throws on bad UTF-8; the metadata is ours
  text.pop_back();
  std::unordered_set<std::string> names;
  int64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    if (!is_valid_utf8(tensor.name)) throw UserError("tensor name " + in_quotes(tensor.name) + " is not valid UTF-8");
    if (tensor.name == "__metadata__") throw UserError("a tensor cannot be called '__metadata__': the format uses that key");
    if (!names.insert(tensor.name).second) throw UserError("tensor name " + in_quotes(tensor.name) + " occurs twice");
    const nlohmann::ordered_json entry{{"dtype", tensor.stored.empty() ? std::string(stored_name(tensor.dtype)) : tensor.stored},
                                       {"shape", tensor.shape},
                                       {"data_offsets", {offset, offset + tensor.num_bytes()}}};
    text += (text.size() > 1 ? "," : "") + nlohmann::json(tensor.name).dump() + ":" + entry.dump();
    offset += tensor.num_bytes();
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeaderBytes)
    throw UserError(concat_text("the header of ", tensors.size(), " tensors would have ", text.size(), " bytes; readers allow ",
                                kMaxSafetensorsHeaderBytes));
  const uint64_t length = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);
  return prefix + text;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(in_file_order(std::move(tensors))), file_(path) {
  file_.write(safetensors_header(tensors_, metadata));
  for (const TensorSpec& tensor : tensors_) missing_bytes_ += tensor.num_bytes();
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  missing_bytes_ -= static_cast<int64_t>(bytes.size());
  MW_CHECK(missing_bytes_ >= 0, -missing_bytes_, " bytes more than the tensors have");
  file_.write(bytes);
}

FileDigest SafetensorsWriter::finish() {
  MW_CHECK(missing_bytes_ == 0, missing_bytes_, " bytes of the tensors were not written");
  return file_.finish();
}

}  // namespace mw
