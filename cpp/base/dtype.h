// Element types and conversions between them.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace mw {

enum class DType : uint8_t { kF32, kBF16, kF16, kF64, kI32, kU8, kI8 };  // kU8 doubles as bool; kI8 is reserved for quantisation

int64_t dtype_bytes(DType dtype);
std::string_view dtype_name(DType dtype);  // "f32", "bf16", ...
DType parse_dtype(std::string_view name);  // also "float32", "bfloat16", ...; UserError names the nearest
inline bool is_float(DType dtype) { return dtype <= DType::kF64; }

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float to_float(BF16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline BF16 to_bf16(float x) {  // round to nearest even; NaN stays NaN
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
float to_float(F16 x);
F16 to_f16(float x);

// One element of an array of `dtype`, as a double; and back, rounded to `dtype`.
double load_element(DType dtype, const void* data, int64_t index);
void store_element(DType dtype, void* data, int64_t index, double value);

}  // namespace mw
