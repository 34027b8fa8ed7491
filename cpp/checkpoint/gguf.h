// Reading one GGUF file (versions 2 and 3). The format is described in docs/formats/gguf.md.
//
//   const GgufFile file = GgufFile::open("model-Q4_K_M.gguf");
//   file.header().text("general.architecture")                       // "llama"
//   for (const GgufTensor& tensor : file.header().tensors) file.decode(tensor, 0, 32, floats);
//
// Opening maps the file and checks everything: every count and length against the bytes that are left before it is used, key and
// tensor names, value types, alignment, each tensor's size against its shape and type, and that the tensors lie one after the other
// without overlap or hole, inside the file. Arrays stay where they are in the file; memory is in proportion to the pairs and tensors.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "checkpoint/slice.h"

namespace mw {

enum class GgufValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// An array of numbers, booleans or strings, as views of the file's bytes. Arrays of arrays are refused.
struct GgufArray {
  GgufValueType type = GgufValueType::kU8;
  uint64_t count = 0;
  std::span<const std::byte> bytes;

  std::vector<std::string_view> strings() const;  // of an array of strings
  std::vector<double> numbers() const;            // of any other
  std::vector<int64_t> integers() const;          // of whole numbers and booleans
};

using GgufScalar = std::variant<bool, int64_t, uint64_t, double, std::string>;  // floats with the fewest digits that name them

struct GgufValue {
  GgufValueType type = GgufValueType::kU8;
  GgufScalar scalar;
  GgufArray array;  // where the type is kArray
};

// How the elements of a tensor are packed: blocks of `elements` in `bytes`.
struct GgufEncoding {
  uint32_t id;
  std::string_view name;  // "Q4_K"
  int64_t elements, bytes;
  void (*decode)(const std::byte* block, float* to);
  std::optional<DType> dtype;  // of the plain floats, which have no `decode`
};

const GgufEncoding* find_gguf_encoding(uint32_t id);  // nullptr: not one that is read here
std::string gguf_encoding_names();                    // "F32, F16, Q4_0, ..."
std::string gguf_encoding_name(uint32_t id);          // also of those that are not read: "IQ4_XS", or "number 99"

// Decodes `count` consecutive elements from number `first` on; `bytes` are all blocks.
void decode_gguf(const GgufEncoding& encoding, std::span<const std::byte> bytes, int64_t first, int64_t count, float* to);

struct GgufTensor {
  std::string name;
  const GgufEncoding* encoding = nullptr;
  Shape shape;                 // outermost dim first, as everywhere here; the file has them the other way round
  int64_t begin = 0, end = 0;  // bytes, counted from the begin of the file

  int64_t num_bytes() const { return end - begin; }
};

struct GgufHeader {
  uint32_t version = 3;
  int64_t alignment = 32;
  int64_t data_begin = 0;
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;  // in the order of their bytes

  const GgufValue* find(std::string_view key) const;
  // UserError when the key is missing or its value is of another kind; the source of the error is `what`.
  std::string text(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  std::optional<int64_t> integer_if_any(std::string_view key) const;
  std::optional<double> number_if_any(std::string_view key) const;
  bool flag(std::string_view key, bool otherwise) const;

  std::string what;
};

// `file` is the whole file; the header's arrays are views of it. UserError names `what`.
GgufHeader parse_gguf(std::span<const std::byte> file, std::string_view what);

class GgufFile {
 public:
  static GgufFile open(const std::string& path);
  // Bytes in memory, which outlive the object; `name` stands for a path in errors.
  static GgufFile view(std::span<const std::byte> bytes, const std::string& name);

  const std::string& path() const { return header_.what; }
  const GgufHeader& header() const { return header_; }
  const GgufTensor* find(const std::string& name) const;  // nullptr when absent

  std::span<const std::byte> bytes(const GgufTensor& tensor) const;
  std::span<const std::byte> mapping() const { return file_ ? bytes_ : std::span<const std::byte>(); }  // empty for a view

  // Any number of threads at once, each with its own `pages` (TouchedPages(mapping())).
  void decode(const GgufTensor& tensor, int64_t first, int64_t count, float* to, TouchedPages& pages) const;
  // A slice of a tensor of plain floats, packed and converted.
  void copy(const GgufTensor& tensor, const Slice& slice, DType as, void* to) const;

 private:
  GgufFile(std::optional<MappedFile> file, std::span<const std::byte> bytes, const std::string& name);

  std::optional<MappedFile> file_;
  std::span<const std::byte> bytes_;
  GgufHeader header_;
  std::map<std::string_view, size_t> index_;  // views of the names in header_
};

}  // namespace mw
