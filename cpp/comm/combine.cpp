#include "comm/combine.h"

#include <algorithm>

namespace mw {
namespace {

// `load(p, i)` gives an element as a T, `store(i, x)` puts one. One block of totals at a time: the inner loops are then straight ones.
template <typename T, typename Load, typename Store>
void fold(ReduceKind kind, std::span<const void* const> in, int64_t offset, int64_t count, Load load, Store store) {
  constexpr int64_t kBlock = 1024;
  T total[kBlock];
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = std::min(kBlock, count - first), at = offset + first;
    for (int64_t i = 0; i < n; ++i) total[i] = load(in[0], at + i);
    for (const void* other : in.subspan(1)) {
      if (kind == ReduceKind::kSum) {
        for (int64_t i = 0; i < n; ++i) total[i] += load(other, at + i);
      } else {
        for (int64_t i = 0; i < n; ++i) total[i] = std::max(total[i], static_cast<T>(load(other, at + i)));
      }
    }
    for (int64_t i = 0; i < n; ++i) store(first + i, total[i]);
  }
}

}  // namespace

void combine(DType dtype, ReduceKind kind, std::span<const void* const> in, int64_t offset, void* out, int64_t count) {
  if (dtype == DType::kF32) {
    fold<float>(
        kind, in, offset, count, [](const void* p, int64_t i) { return static_cast<const float*>(p)[i]; },
        [&](int64_t i, float x) { static_cast<float*>(out)[i] = x; });
  } else if (dtype == DType::kBF16) {
    fold<float>(
        kind, in, offset, count, [](const void* p, int64_t i) { return to_float(static_cast<const BF16*>(p)[i]); },
        [&](int64_t i, float x) { static_cast<BF16*>(out)[i] = to_bf16(x); });
  } else {
    fold<double>(
        kind, in, offset, count, [&](const void* p, int64_t i) { return load_element(dtype, p, i); },
        [&](int64_t i, double x) { store_element(dtype, out, i, x); });
  }
}

}  // namespace mw
