// Parsing and checking of the header. Events instead of a tree: memory stays proportional to the tensors, whatever the text holds.
#include <algorithm>
#include <array>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/json_sax.h"
#include "base/printable.h"
#include "checkpoint/safetensors.h"

namespace mw {
namespace {

struct StoredDType {
  std::string_view name;
  uint64_t bits;
};
constexpr std::array<StoredDType, 22> kStoredDTypes{
    {{"BOOL", 8},    {"F4", 4},          {"F6_E2M3", 6},     {"F6_E3M2", 6}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16}, {"F16", 16}, {"BF16", 16},   {"I32", 32},
     {"U32", 32},    {"F32", 32},        {"C64", 64},        {"F64", 64},    {"I64", 64}, {"U64", 64}}};

// {"__metadata__": {string: string}, NAME: {"dtype": string, "shape": [uint...], "data_offsets": [uint, uint], other: anything}}
class HeaderReader : public JsonHandler {
 public:
  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kStart:
        return enter(State::kTop);
      case State::kTop:
        if (key_ == "__metadata__") return enter(State::kMetadata);
        tensor_ = {};
        tensor_.name = std::move(key_);
        seen_ = {};
        return enter(State::kTensor);
      case State::kTensor:
        if (is_field(key_)) return unexpected("an object");
        return skip();
      case State::kSkip:
        return skip();
      default:
        return unexpected("an object");
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::kTop:
        return enter(State::kEnd);
      case State::kMetadata:
        return enter(State::kTop);
      case State::kTensor:
        for (size_t i = 0; i < seen_.size(); ++i) {
          if (!seen_[i]) return refuse("tensor " + in_quotes(tensor_.name) + " lacks the key '" + std::string(kFields[i]) + "'");
        }
        header.tensors.push_back(std::move(tensor_));
        return enter(State::kTop);
      default:
        return unskip();
    }
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kSkip) return skip();
    if (state_ != State::kTensor) return unexpected("an array");
    if (key_ == "shape") return enter(State::kShape);
    if (key_ == "data_offsets") {
      num_offsets_ = 0;
      return enter(State::kOffsets);
    }
    return key_ == "dtype" ? unexpected("an array") : skip();
  }

  bool end_array() override {
    if (state_ == State::kSkip) return unskip();
    if (state_ == State::kOffsets && num_offsets_ != 2)
      return refuse("data_offsets of tensor " + in_quotes(tensor_.name) + " needs two numbers");
    return enter(State::kTensor);
  }

  bool key(string_t& name) override {
    if (state_ == State::kSkip) return true;
    if (state_ == State::kTop && !names_.insert(name).second) return refuse("name " + in_quotes(name) + " occurs twice");
    if (state_ == State::kMetadata && header.metadata.contains(name)) return refuse("metadata key " + in_quotes(name) + " occurs twice");
    if (state_ == State::kTensor) {
      for (size_t i = 0; i < kFields.size(); ++i) {
        if (name == kFields[i] && std::exchange(seen_[i], true))
          return refuse("key '" + name + "' of tensor " + in_quotes(tensor_.name) + " occurs twice");
      }
    }
    key_ = std::move(name);
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      header.metadata[key_] = std::move(value);
      return true;
    }
    if (state_ == State::kTensor && key_ == "dtype") {
      tensor_.dtype = std::move(value);
      return true;
    }
    return ignored() || unexpected("a string");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::kShape && state_ != State::kOffsets) return ignored() || unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return refuse(about() + "the number " + std::to_string(value) + " is too large");
    const int64_t number = static_cast<int64_t>(value);
    if (state_ == State::kShape) {
      if (tensor_.shape.size() == kMaxRank) return refuse(about() + "more than " + std::to_string(kMaxRank) + " dims");
      tensor_.shape.push_back(number);
      return true;
    }
    if (num_offsets_ == 2) return refuse(about() + "data_offsets needs two numbers, found more");
    (num_offsets_++ == 0 ? tensor_.begin : tensor_.end) = number;
    return true;
  }

  bool null() override { return ignored() || (state_ == State::kTop && key_ == "__metadata__") || unexpected("null"); }
  bool boolean(bool) override { return ignored() || unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return ignored() || unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return ignored() || unexpected("a number with a fraction or exponent"); }

  SafetensorsHeader header;

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kSkip, kEnd };
  static constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};

  static bool is_field(const std::string& name) { return std::find(kFields.begin(), kFields.end(), name) != kFields.end(); }

  bool enter(State state) {
    state_ = state;
    return true;
  }
  bool skip() {  // into the value of a key that the format does not know
    if (++skip_depth_ > kMaxJsonDepth) return refuse("nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    return enter(State::kSkip);
  }
  bool unskip() { return --skip_depth_ > 0 || enter(State::kTensor); }
  bool ignored() const { return state_ == State::kSkip || (state_ == State::kTensor && !is_field(key_)); }

  std::string about() const {
    const bool in_tensor = state_ == State::kTensor || state_ == State::kShape || state_ == State::kOffsets;
    return in_tensor ? "tensor " + in_quotes(tensor_.name) + ": " : "";
  }
  bool unexpected(const std::string& found) {
    constexpr std::array<const char*, 8> kWanted{
        "the header's object", "an object", "a string", "", "a whole number of at least 0", "a whole number of at least 0", "", ""};
    const std::string wanted = state_ != State::kTensor ? kWanted[static_cast<size_t>(state_)]
                               : key_ == "dtype"        ? "a string"
                                                        : "an array of whole numbers";
    const bool has_key = state_ == State::kTop || state_ == State::kMetadata || state_ == State::kTensor;
    return refuse(about() + "expected " + wanted + (has_key ? " for key " + in_quotes(key_) : "") + ", found " + found);
  }

  State state_ = State::kStart;
  std::string key_;
  StoredTensor tensor_;
  std::array<bool, 3> seen_{};
  int num_offsets_ = 0;
  int skip_depth_ = 0;
  std::unordered_set<std::string> names_;
};

// Bytes of a tensor of this shape; UserError on overflow, even where another dim is zero.
int64_t checked_bytes(const StoredTensor& tensor, const std::string& where) {
  const auto* dtype =
      std::find_if(kStoredDTypes.begin(), kStoredDTypes.end(), [&](const StoredDType& known) { return known.name == tensor.dtype; });
  if (dtype == kStoredDTypes.end()) {
    std::vector<std::string> known;
    for (const StoredDType& candidate : kStoredDTypes) known.emplace_back(candidate.name);
    throw UserError(where + "unknown dtype " + in_quotes(tensor.dtype) +
                    (tensor.dtype.size() < 32 ? did_you_mean(tensor.dtype, known) : ""));
  }
  uint64_t bits = 1;
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits))
      throw UserError(where + "shape " + shape_text(tensor.shape) + " has more elements than 2^64");
  }
  if (__builtin_mul_overflow(bits, dtype->bits, &bits))
    throw UserError(where + "shape " + shape_text(tensor.shape) + " has more bits than 2^64");
  if (bits % 8 != 0) throw UserError(concat_text(where, bits, " bits of ", tensor.dtype, " do not fill whole bytes"));
  return static_cast<int64_t>(bits / 8);
}

}  // namespace

std::optional<DType> dtype_of_stored(std::string_view stored) {
  if (stored == "BOOL") return DType::kU8;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI32, DType::kU8, DType::kI8}) {
    if (stored_name(dtype) == stored) return dtype;
  }
  return std::nullopt;
}

std::string_view stored_name(DType dtype) {
  constexpr std::array<std::string_view, 7> names{"F32", "BF16", "F16", "F64", "I32", "U8", "I8"};
  return names[static_cast<size_t>(dtype)];
}

SafetensorsHeader parse_safetensors_header(std::string_view json, uint64_t data_bytes, std::string_view what) {
  const std::string file = printable(what, 1000);
  if (!json.starts_with('{')) throw UserError(file + ": a safetensors header must begin with '{', found " + in_quotes(json.substr(0, 8)));
  HeaderReader reader;
  parse_json_events(json, concat_text(what, " (header)"), reader);
  SafetensorsHeader header = std::move(reader.header);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  int64_t covered = 0;
  for (const StoredTensor& tensor : header.tensors) {
    const std::string where = file + ": tensor " + in_quotes(tensor.name) + ": ";
    if (tensor.begin != covered || tensor.end < tensor.begin) {
      throw UserError(concat_text(where, "data_offsets [", tensor.begin, ", ", tensor.end, "] ",
                                  tensor.end < tensor.begin ? "run backwards"
                                  : tensor.begin < covered  ? "overlap another tensor"
                                                            : "leave a hole",
                                  "; the data before it ends at ", covered));
    }
    const int64_t expected = checked_bytes(tensor, where);
    if (tensor.num_bytes() != expected) {
      throw UserError(concat_text(where, tensor.dtype, shape_text(tensor.shape), " needs ", expected, " bytes, data_offsets span ",
                                  tensor.num_bytes()));
    }
    covered = tensor.end;
  }
  if (static_cast<uint64_t>(covered) != data_bytes) {
    throw UserError(concat_text(file, ": its tensors need ", covered, " bytes, the file holds ", data_bytes,
                                static_cast<uint64_t>(covered) > data_bytes ? " (is it truncated?)" : " (is something appended?)"));
  }
  return header;
}

}  // namespace mw
