// Parsing and checking of a GGUF file's header: magic, version, counts, metadata pairs, tensor records, padding, data.
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/printable.h"
#include "checkpoint/gguf.h"

namespace mw {
namespace {

constexpr uint64_t kMaxPairs = 1 << 16, kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeyBytes = 65535, kMaxTensorNameBytes = 256, kMaxTextBytes = 256 << 20;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxAlignment = 1 << 20;

constexpr std::array<std::string_view, 13> kTypeNames{"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                      "bool", "string", "array", "u64", "i64", "f64"};

size_t fixed_bytes(GgufValueType type) {  // 0: no fixed size
  constexpr std::array<size_t, 13> kBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// 1e-06f is 1e-06, not 9.99999997475e-07: the number that the file's writer had in mind.
double shortest(float value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double number = value;
  std::from_chars(text.data(), end, number);
  return number;
}

GgufScalar load_scalar(GgufValueType type, const std::byte* from) {
  switch (type) {
    case GgufValueType::kU8:
      return static_cast<uint64_t>(load<uint8_t>(from));
    case GgufValueType::kI8:
      return static_cast<int64_t>(load<int8_t>(from));
    case GgufValueType::kU16:
      return static_cast<uint64_t>(load<uint16_t>(from));
    case GgufValueType::kI16:
      return static_cast<int64_t>(load<int16_t>(from));
    case GgufValueType::kU32:
      return static_cast<uint64_t>(load<uint32_t>(from));
    case GgufValueType::kI32:
      return static_cast<int64_t>(load<int32_t>(from));
    case GgufValueType::kF32:
      return shortest(load<float>(from));
    case GgufValueType::kBool:
      return load<uint8_t>(from) != 0;
    case GgufValueType::kU64:
      return load<uint64_t>(from);
    case GgufValueType::kI64:
      return load<int64_t>(from);
    case GgufValueType::kF64:
      return load<double>(from);
    default:
      throw InternalError("load_scalar: not a number");
  }
}

// Walks over bytes that may be anything: no length is used before it is compared with what is left.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, std::string what) : file_(file), what_(std::move(what)) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  [[noreturn]] void refuse(const std::string& problem) const { throw UserError(what_ + ": " + problem); }

  // The name of what is read, "the length of " + "key 'a'", is put together only when it is refused.
  std::span<const std::byte> take(uint64_t bytes, std::string_view part, std::string_view name = {}) {
    if (bytes > left())
      refuse(concat_text(part, name, " needs ", bytes, " bytes at ", at_, ", but only ", left(), " are left (is the file truncated?)"));
    at_ += bytes;
    return file_.subspan(static_cast<size_t>(at_ - bytes), static_cast<size_t>(bytes));
  }

  template <typename T>
  T number(std::string_view part, std::string_view name = {}) {
    return load<T>(take(sizeof(T), part, name).data());
  }

  std::string_view text(std::string_view name, uint64_t most) {
    const uint64_t length = number<uint64_t>("the length of ", name);
    if (length > most) refuse(concat_text(name, " claims ", length, " bytes; at most ", most, " are allowed"));
    const auto bytes = take(length, name);
    const std::string_view view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!is_valid_utf8(view)) refuse(concat_text(name, " is not valid UTF-8: ", in_quotes(view)));
    return view;
  }

  GgufValueType type(const std::string& name) {
    const uint32_t id = number<uint32_t>("the type of ", name);
    if (id >= kTypeNames.size()) refuse(concat_text(name, " has the value type ", id, "; there are 0 to ", kTypeNames.size() - 1));
    return static_cast<GgufValueType>(id);
  }

 private:
  std::span<const std::byte> file_;
  uint64_t at_ = 0;
  std::string what_;
};

bool is_boolean(std::byte b) { return b == std::byte{0} || b == std::byte{1}; }

GgufArray read_array(Cursor& cursor, const std::string& name) {
  GgufArray array;
  array.type = cursor.type(name);
  if (array.type == GgufValueType::kArray) cursor.refuse(name + " is an array of arrays, which no known key has");
  array.count = cursor.number<uint64_t>("the length of ", name);
  const uint64_t least = array.type == GgufValueType::kString ? 8 : fixed_bytes(array.type);
  if (array.count > cursor.left() / least) {
    cursor.refuse(
        concat_text(name, " claims ", array.count, " elements, but only ", cursor.left(), " bytes are left (is the file truncated?)"));
  }
  if (array.type != GgufValueType::kString) {
    array.bytes = cursor.take(array.count * least, name);
    if (array.type == GgufValueType::kBool && !std::all_of(array.bytes.begin(), array.bytes.end(), is_boolean))
      cursor.refuse(name + " holds a boolean that is neither 0 nor 1");
    return array;
  }
  Cursor walker = cursor;
  const uint64_t begin = cursor.at();
  const std::string element = "an element of " + name;
  for (uint64_t i = 0; i < array.count; ++i) walker.text(element, kMaxTextBytes);
  array.bytes = cursor.take(walker.at() - begin, name);
  return array;
}

GgufValue read_value(Cursor& cursor, const std::string& name) {
  GgufValue value;
  value.type = cursor.type(name);
  if (value.type == GgufValueType::kString) {
    value.scalar = std::string(cursor.text(name, kMaxTextBytes));
  } else if (value.type == GgufValueType::kArray) {
    value.array = read_array(cursor, name);
  } else {
    const auto bytes = cursor.take(fixed_bytes(value.type), name);
    if (value.type == GgufValueType::kBool && !is_boolean(bytes[0])) cursor.refuse(name + " is a boolean that is neither 0 nor 1");
    value.scalar = load_scalar(value.type, bytes.data());
  }
  return value;
}

struct TensorRecord {
  GgufTensor tensor;
  uint64_t offset = 0;  // from the begin of the data
};

int64_t checked_bytes(const Cursor& cursor, const GgufTensor& tensor) {
  const GgufEncoding& encoding = *tensor.encoding;
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % encoding.elements != 0) {
    cursor.refuse(concat_text("tensor ", in_quotes(tensor.name), " of shape ", shape_text(tensor.shape), " has rows of ", row,
                              " elements, which do not divide into the blocks of ", encoding.elements, " of ", encoding.name));
  }
  int64_t bytes = encoding.bytes;
  bool overflows = false;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    const int64_t count = d + 1 == tensor.shape.size() ? row / encoding.elements : tensor.shape[d];
    overflows = overflows || __builtin_mul_overflow(bytes, count, &bytes);
  }
  // Elements are counted in 64 bits too: the most per byte are two.
  if (overflows || bytes > (int64_t{1} << 60)) {
    cursor.refuse(concat_text("tensor ", in_quotes(tensor.name), " of shape ", shape_text(tensor.shape), " is too large"));
  }
  return bytes;
}

TensorRecord read_record(Cursor& cursor) {
  TensorRecord record;
  GgufTensor& tensor = record.tensor;
  tensor.name = cursor.text("a tensor's name", kMaxTensorNameBytes);
  const std::string name = "tensor " + in_quotes(tensor.name);
  const uint32_t rank = cursor.number<uint32_t>("the number of dims of ", name);
  if (rank > kMaxDims) cursor.refuse(concat_text(name, " claims ", rank, " dims; at most ", kMaxDims, " are allowed"));
  for (uint32_t d = 0; d < rank; ++d) {
    const uint64_t size = cursor.number<uint64_t>("a dim of ", name);
    if (size == 0 || size > uint64_t{std::numeric_limits<int64_t>::max()})
      cursor.refuse(concat_text(name, " has a dim of ", size, "; expected at least 1"));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const uint32_t id = cursor.number<uint32_t>("the type of ", name);
  tensor.encoding = find_gguf_encoding(id);
  if (!tensor.encoding) {
    cursor.refuse(name + " is stored as " + gguf_encoding_name(id) + ", which is not read here; there are " + gguf_encoding_names());
  }
  tensor.end = checked_bytes(cursor, tensor);
  record.offset = cursor.number<uint64_t>("the offset of ", name);
  return record;
}

// Reads the counted pairs; the last of them, in file order, is refused where its key was there before.
void read_metadata(Cursor& cursor, uint64_t num_pairs, GgufHeader& header) {
  for (uint64_t i = 0; i < num_pairs; ++i) {
    std::string key(cursor.text("a metadata key", kMaxKeyBytes));
    const std::string name = "key " + in_quotes(key);
    if (key.empty()) cursor.refuse("a metadata key is empty");
    if (header.metadata.contains(key)) cursor.refuse(name + " occurs twice");
    header.metadata[std::move(key)] = read_value(cursor, name);
  }
}

void place_tensors(const Cursor& cursor, std::vector<TensorRecord>& records, uint64_t file_bytes, GgufHeader& header) {
  std::stable_sort(records.begin(), records.end(), [](const TensorRecord& a, const TensorRecord& b) { return a.offset < b.offset; });
  const uint64_t alignment = static_cast<uint64_t>(header.alignment), data = static_cast<uint64_t>(header.data_begin);
  uint64_t next = 0;  // where the data of the next tensor has to begin
  for (TensorRecord& record : records) {
    GgufTensor& tensor = record.tensor;
    const uint64_t bytes = static_cast<uint64_t>(tensor.end);
    if (record.offset != next) {
      cursor.refuse(concat_text("tensor ", in_quotes(tensor.name), " begins at ", record.offset, "; expected ", next,
                                ", where the data before it ends, padded to ", alignment));
    }
    if (data > file_bytes || next > file_bytes - data || bytes > file_bytes - data - next) {
      cursor.refuse(concat_text("tensor ", in_quotes(tensor.name), " needs ", bytes, " bytes at ", next, " of the data, which has ",
                                file_bytes > data ? file_bytes - data : 0, " (is the file truncated?)"));
    }
    tensor.begin = static_cast<int64_t>(data + next);
    tensor.end = tensor.begin + static_cast<int64_t>(bytes);
    next = (next + bytes + alignment - 1) / alignment * alignment;
    header.tensors.push_back(std::move(tensor));
  }
  if (!records.empty() && file_bytes > data + next)
    cursor.refuse(concat_text(file_bytes - data - next, " bytes follow the last tensor (is something appended?)"));
}

}  // namespace

GgufHeader parse_gguf(std::span<const std::byte> file, std::string_view what) {
  static_assert(std::endian::native == std::endian::little, "the files are little-endian");
  GgufHeader header;
  header.what = what;
  Cursor cursor(file, printable(what, 1000));
  if (file.size() < 4 || std::memcmp(file.data(), "GGUF", 4) != 0)
    cursor.refuse("a GGUF file begins with the letters GGUF, this one does not");
  cursor.take(4, "the magic");
  header.version = cursor.number<uint32_t>("the version");
  if (header.version != 2 && header.version != 3) {
    if (header.version == 1) cursor.refuse("is a GGUF file of version 1, which no tool has written since 2023; versions 2 and 3 are read");
    if (header.version != 0 && (header.version & 0xffff) == 0) cursor.refuse("is a big-endian GGUF file; only little-endian ones are read");
    cursor.refuse(concat_text("is a GGUF file of version ", header.version, "; versions 2 and 3 are read"));
  }
  const uint64_t num_tensors = cursor.number<uint64_t>("the number of tensors"), num_pairs = cursor.number<uint64_t>("the number of keys");
  if (num_tensors > kMaxTensors) cursor.refuse(concat_text("claims ", num_tensors, " tensors; at most ", kMaxTensors, " are allowed"));
  if (num_pairs > kMaxPairs) cursor.refuse(concat_text("claims ", num_pairs, " metadata keys; at most ", kMaxPairs, " are allowed"));
  read_metadata(cursor, num_pairs, header);

  if (const GgufValue* alignment = header.find("general.alignment")) {
    const uint64_t* bytes = std::get_if<uint64_t>(&alignment->scalar);
    if (alignment->type != GgufValueType::kU32 || !std::has_single_bit(*bytes) || *bytes > kMaxAlignment)
      cursor.refuse(concat_text("general.alignment: expected a power of two up to ", kMaxAlignment, " as u32"));
    header.alignment = static_cast<int64_t>(*bytes);
  }
  std::vector<TensorRecord> records;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    records.push_back(read_record(cursor));
    if (!names.insert(records.back().tensor.name).second)
      cursor.refuse("tensor name " + in_quotes(records.back().tensor.name) + " occurs twice");
  }
  const uint64_t alignment = static_cast<uint64_t>(header.alignment);
  header.data_begin = static_cast<int64_t>((cursor.at() + alignment - 1) / alignment * alignment);
  place_tensors(cursor, records, file.size(), header);
  return header;
}

std::vector<std::string_view> GgufArray::strings() const {
  MW_CHECK(type == GgufValueType::kString, "not an array of strings");
  std::vector<std::string_view> all;
  all.reserve(count);
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t length = load<uint64_t>(bytes.data() + at);
    all.emplace_back(reinterpret_cast<const char*>(bytes.data()) + at + 8, length);
    at += 8 + length;
  }
  return all;
}

std::vector<double> GgufArray::numbers() const {
  std::vector<double> all;
  all.reserve(count);
  const size_t size = fixed_bytes(type);
  for (uint64_t i = 0; i < count; ++i) {
    all.push_back(std::visit(
        [](const auto& value) -> double {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string>) {
            return 0;
          } else {
            return static_cast<double>(value);
          }
        },
        load_scalar(type, bytes.data() + i * size)));
  }
  return all;
}

std::vector<int64_t> GgufArray::integers() const {
  std::vector<int64_t> all;
  all.reserve(count);
  const size_t size = fixed_bytes(type);
  for (uint64_t i = 0; i < count; ++i) {
    const GgufScalar value = load_scalar(type, bytes.data() + i * size);
    if (const auto* number = std::get_if<int64_t>(&value)) {
      all.push_back(*number);
    } else if (const auto* unsigned_number = std::get_if<uint64_t>(&value)) {
      all.push_back(static_cast<int64_t>(*unsigned_number));
    } else if (const auto* flag = std::get_if<bool>(&value)) {
      all.push_back(*flag);
    } else {
      throw InternalError("integers: an array of floats");
    }
  }
  return all;
}

}  // namespace mw
