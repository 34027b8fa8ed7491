// Reading one safetensors file of any origin. The format is described in docs/formats/checkpoint.md.
//
//   const SafetensorsFile file = SafetensorsFile::open("model.safetensors");
//   for (const StoredTensor& tensor : file.tensors()) use(tensor.name, tensor.dtype, tensor.shape, file.bytes(tensor));
//
// Opening maps the file and checks everything: the header's length against the file's, the JSON, every size against its shape,
// and that the tensors cover the data exactly, without overlap, hole or rest. A file that the reference implementation (0.8)
// refuses is refused here; beyond that we refuse a key that occurs twice, white space before the '{', more than 64 dims,
// and a tensor written as an array instead of an object. Tensor names are keys and never used as paths.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/slice.h"

namespace mw {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxRank = 64;

struct StoredTensor {
  std::string name;
  std::string dtype;  // as the file says it: "F32", "BF16", "F8_E4M3", "I64", ...
  Shape shape;
  int64_t begin = 0, end = 0;  // bytes, counted from the end of the header

  int64_t num_bytes() const { return end - begin; }
};

// Our dtype for a stored one ("BOOL" is u8), or nothing where we have none (F8_E4M3, I64, ...).
std::optional<DType> dtype_of_stored(std::string_view stored);
std::string_view stored_name(DType dtype);  // "F32", ...

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

// `json` is the header's text, `data_bytes` the number of bytes that follow it. UserError names `what`.
SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes, std::string_view what);

// The header of a whole file's bytes: length field and text are checked too.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view what);

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path);
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;
  ~SafetensorsFile();

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const StoredTensor* find(const std::string& name) const;  // nullptr when absent

  // The mapped bytes; valid as long as this object. Reading them brings their pages into memory: TouchedPages(mapping()) gives them back.
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;
  std::span<const std::byte> mapping() const { return {map_, map_bytes_}; }

  // Copies a slice, packed in row-major order, into `to`, converted to `as` (float to float; otherwise the dtypes must be equal).
  // Touches only the pages that hold the slice and gives them back, so resident memory grows by the result, not by the file.
  // May be called by many threads at once.
  void read(const StoredTensor& tensor, const Slice& slice, DType as, void* to) const;

 private:
  SafetensorsFile(std::string path, const std::byte* map, size_t map_bytes);

  std::string path_;
  const std::byte* map_ = nullptr;
  size_t map_bytes_ = 0;
  size_t data_begin_ = 0;
  SafetensorsHeader header_;
  std::unordered_map<std::string_view, size_t> index_;  // views of the names in header_
};

}  // namespace mw
