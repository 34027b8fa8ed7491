#include "checkpoint/slice.h"

#include <cstring>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

template <typename T>
T load_unaligned(const void* from, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const char*>(from) + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float as_float(float x) { return x; }
float as_float(double x) { return static_cast<float>(x); }
float as_float(BF16 x) { return to_float(x); }
float as_float(F16 x) { return to_float(x); }

template <typename From, typename To, typename Convert>
void convert_run(const void* from, void* to, int64_t count, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    const To value = convert(load_unaligned<From>(from, i));
    std::memcpy(static_cast<char*>(to) + i * static_cast<int64_t>(sizeof(To)), &value, sizeof(To));
  }
}

template <typename From>
void convert_from(const void* from, DType to_dtype, void* to, int64_t count) {
  switch (to_dtype) {
    case DType::kF32:
      return convert_run<From, float>(from, to, count, [](From x) { return as_float(x); });
    case DType::kBF16:
      return convert_run<From, BF16>(from, to, count, [](From x) { return to_bf16(as_float(x)); });
    case DType::kF16:
      return convert_run<From, F16>(from, to, count, [](From x) { return to_f16(as_float(x)); });
    case DType::kF64:
      return convert_run<From, double>(from, to, count, [](From x) { return static_cast<double>(as_float(x)); });
    default:
      throw InternalError("convert_from: not a float dtype");
  }
}

}  // namespace

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t d = 0; d < shape.size(); ++d) text += (d ? ", " : "") + std::to_string(shape[d]);
  return text + "]";
}

std::string slice_text(const Slice& slice) {
  std::string text = "[";
  for (size_t d = 0; d < slice.begin.size() && d < slice.end.size(); ++d) {
    text += (d ? ", " : "") + std::to_string(slice.begin[d]) + ":" + std::to_string(slice.end[d]);
  }
  return text + "]";
}

Slice whole(const Shape& shape) { return {Shape(shape.size(), 0), shape}; }

int64_t num_elements(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

int64_t num_elements(const Slice& slice) {
  int64_t count = 1;
  for (size_t d = 0; d < slice.begin.size(); ++d) count *= slice.end[d] - slice.begin[d];
  return count;
}

void check_slice(std::string_view name, const Shape& shape, const Slice& slice) {
  bool inside = slice.begin.size() == shape.size() && slice.end.size() == shape.size();
  for (size_t d = 0; inside && d < shape.size(); ++d)
    inside = 0 <= slice.begin[d] && slice.begin[d] <= slice.end[d] && slice.end[d] <= shape[d];
  if (!inside) {
    throw UserError(concat_text("slice ", slice_text(slice), " (rank ", slice.begin.size(), ") is not inside tensor ", in_quotes(name),
                                " of shape ", shape_text(shape)));
  }
}

void copy_elements(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t count) {
  if (count == 0) return;
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, static_cast<size_t>(count * dtype_bytes(from_dtype)));
    return;
  }
  if (!is_float(from_dtype) || !is_float(to_dtype)) {
    throw UserError(concat_text("cannot convert ", dtype_name(from_dtype), " to ", dtype_name(to_dtype), "; only float types convert"));
  }
  switch (from_dtype) {
    case DType::kF32:
      return convert_from<float>(from, to_dtype, to, count);
    case DType::kBF16:
      return convert_from<BF16>(from, to_dtype, to, count);
    case DType::kF16:
      return convert_from<F16>(from, to_dtype, to, count);
    default:
      return convert_from<double>(from, to_dtype, to, count);
  }
}

}  // namespace mw
