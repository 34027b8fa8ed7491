#include "base/dtype.h"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mw {
namespace {

constexpr std::array<std::pair<std::string_view, DType>, 17> kNames{{{"f32", DType::kF32},
                                                                     {"bf16", DType::kBF16},
                                                                     {"f16", DType::kF16},
                                                                     {"f64", DType::kF64},
                                                                     {"i32", DType::kI32},
                                                                     {"u8", DType::kU8},
                                                                     {"i8", DType::kI8},
                                                                     {"float32", DType::kF32},
                                                                     {"bfloat16", DType::kBF16},
                                                                     {"float16", DType::kF16},
                                                                     {"float64", DType::kF64},
                                                                     {"int32", DType::kI32},
                                                                     {"uint8", DType::kU8},
                                                                     {"bool", DType::kU8},
                                                                     {"int8", DType::kI8},
                                                                     {"fp32", DType::kF32},
                                                                     {"fp16", DType::kF16}}};

}  // namespace

int64_t dtype_bytes(DType dtype) {
  constexpr std::array<int64_t, 7> bytes{4, 2, 2, 8, 4, 1, 1};
  return bytes[static_cast<size_t>(dtype)];
}

std::string_view dtype_name(DType dtype) { return kNames[static_cast<size_t>(dtype)].first; }

DType parse_dtype(std::string_view name) {
  std::vector<std::string> known;
  for (const auto& [known_name, dtype] : kNames) {
    if (known_name == name) return dtype;
    known.emplace_back(known_name);
  }
  throw UserError("unknown dtype '" + std::string(name) + "'" + did_you_mean(std::string(name), known) +
                  "; expected one of float32, bfloat16, float16, float64, int32, uint8, int8");
}

float to_float(F16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1f;
  const uint32_t mantissa = x.bits & 0x3ff;
  if (exponent == 0) {  // zero and subnormals: the value is mantissa * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

F16 to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to 65536 or more: infinity
  if (magnitude < 0x38800000) {                                                // below 2^-14: subnormal, rounded at 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)))};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13))};
}

double load_element(DType dtype, const void* data, int64_t index) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<const float*>(data)[index];
    case DType::kBF16:
      return to_float(static_cast<const BF16*>(data)[index]);
    case DType::kF16:
      return to_float(static_cast<const F16*>(data)[index]);
    case DType::kF64:
      return static_cast<const double*>(data)[index];
    case DType::kI32:
      return static_cast<const int32_t*>(data)[index];
    case DType::kU8:
      return static_cast<const uint8_t*>(data)[index];
    case DType::kI8:
      return static_cast<const int8_t*>(data)[index];
  }
  throw InternalError("load_element: unknown dtype");
}

void store_element(DType dtype, void* data, int64_t index, double value) {
  switch (dtype) {
    case DType::kF32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      return;
    case DType::kBF16:
      static_cast<BF16*>(data)[index] = to_bf16(static_cast<float>(value));
      return;
    case DType::kF16:
      static_cast<F16*>(data)[index] = to_f16(static_cast<float>(value));
      return;
    case DType::kF64:
      static_cast<double*>(data)[index] = value;
      return;
    case DType::kI32:
      static_cast<int32_t*>(data)[index] = static_cast<int32_t>(value);
      return;
    case DType::kU8:
      static_cast<uint8_t*>(data)[index] = static_cast<uint8_t>(value);
      return;
    case DType::kI8:
      static_cast<int8_t*>(data)[index] = static_cast<int8_t>(value);
      return;
  }
  throw InternalError("store_element: unknown dtype");
}

}  // namespace mw
