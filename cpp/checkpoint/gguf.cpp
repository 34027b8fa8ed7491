#include "checkpoint/gguf.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

}  // namespace

GgufFile::GgufFile(std::optional<MappedFile> file, std::span<const std::byte> bytes, const std::string& name)
    : file_(std::move(file)), bytes_(bytes), header_(parse_gguf(bytes, name)) {
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_[header_.tensors[i].name] = i;
}

GgufFile GgufFile::open(const std::string& path) {
  MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();  // a mapping stays where it is when its object moves
  return GgufFile(std::move(file), bytes, path);
}

GgufFile GgufFile::view(std::span<const std::byte> bytes, const std::string& name) { return GgufFile(std::nullopt, bytes, name); }

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return bytes_.subspan(static_cast<size_t>(tensor.begin), static_cast<size_t>(tensor.num_bytes()));
}

void GgufFile::decode(const GgufTensor& tensor, int64_t first, int64_t count, float* to, TouchedPages& pages) const {
  const std::span<const std::byte> all = bytes(tensor);
  decode_gguf(*tensor.encoding, all, first, count, to);
  const int64_t elements = tensor.encoding->elements, block_bytes = tensor.encoding->bytes;
  const int64_t begin = first / elements * block_bytes, end = (first + count + elements - 1) / elements * block_bytes;
  if (file_) pages.touch(all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
}

void GgufFile::copy(const GgufTensor& tensor, const Slice& slice, DType as, void* to) const {
  MW_CHECK(tensor.encoding->dtype, tensor.encoding->name, " is not copied but decoded");
  constexpr int64_t kMostElements = 1 << 20;  // between two looks at how much of the file is held
  check_slice(tensor.name, tensor.shape, slice);
  const std::span<const std::byte> all = bytes(tensor);
  const int64_t from_bytes = tensor.encoding->bytes, to_bytes = dtype_bytes(as);
  TouchedPages pages(mapping());
  for_each_run(tensor.shape, slice, [&](int64_t in_tensor, int64_t in_piece, int64_t count) {
    for (int64_t done = 0; done < count; done += kMostElements) {
      const int64_t part = std::min(count - done, kMostElements);
      const auto from = all.subspan(static_cast<size_t>((in_tensor + done) * from_bytes), static_cast<size_t>(part * from_bytes));
      copy_elements(*tensor.encoding->dtype, from.data(), as, static_cast<std::byte*>(to) + (in_piece + done) * to_bytes, part);
      if (file_) pages.touch(from);
    }
  });
}

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto found = metadata.find(key);
  return found == metadata.end() ? nullptr : &found->second;
}

namespace {

[[noreturn]] void refuse_value(const GgufHeader& header, std::string_view key, const char* expected, const GgufValue* found) {
  std::string text = "nothing";
  if (found && found->type == GgufValueType::kArray) text = concat_text("an array of ", found->array.count);
  if (found && found->type != GgufValueType::kArray) {
    text = std::visit(Overloaded{[](const std::string& s) { return in_quotes(s); },
                                 [](bool b) { return std::string(b ? "true" : "false"); }, [](auto number) { return concat_text(number); }},
                      found->scalar);
  }
  throw UserError(concat_text(printable(header.what, 1000), ": key ", in_quotes(key), ": expected ", expected, ", found ", text));
}

}  // namespace

std::string GgufHeader::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value || value->type != GgufValueType::kString) refuse_value(*this, key, "text", value);
  return std::get<std::string>(value->scalar);
}

std::optional<int64_t> GgufHeader::integer_if_any(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufValueType::kArray) {
    if (const auto* number = std::get_if<int64_t>(&value->scalar)) return *number;
    if (const auto* number = std::get_if<uint64_t>(&value->scalar); number && *number <= uint64_t{INT64_MAX})
      return static_cast<int64_t>(*number);
  }
  refuse_value(*this, key, "a whole number", value);
}

std::optional<double> GgufHeader::number_if_any(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufValueType::kArray) {
    if (const auto* number = std::get_if<double>(&value->scalar)) return *number;
  }
  return static_cast<double>(*integer_if_any(key));
}

int64_t GgufHeader::integer(std::string_view key) const {
  const std::optional<int64_t> value = integer_if_any(key);
  if (!value) refuse_value(*this, key, "a whole number", nullptr);
  return *value;
}

double GgufHeader::number(std::string_view key) const {
  const std::optional<double> value = number_if_any(key);
  if (!value) refuse_value(*this, key, "a number", nullptr);
  return *value;
}

bool GgufHeader::flag(std::string_view key, bool otherwise) const {
  const GgufValue* value = find(key);
  if (!value) return otherwise;
  if (value->type != GgufValueType::kBool) refuse_value(*this, key, "true or false", value);
  return std::get<bool>(value->scalar);
}

}  // namespace mw
