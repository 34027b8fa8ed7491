#include "comm/combine.h"

#include <algorithm>
#include <functional>

namespace mw {
namespace {

// Elements are `Stored` in memory and added as T; `load` and `store` turn one into the other. Straight loops over short blocks: they are
// as fast as memory. `out` may be an input, so the total of more than two terms is kept beside it.
template <typename T, typename Stored, typename Load, typename Store>
void fold(ReduceKind kind, std::span<const void* const> in, int64_t offset, void* out, int64_t count, Load load, Store store) {
  constexpr int64_t kBlock = 1024;
  T total[kBlock];
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = std::min(kBlock, count - first);
    const auto term = [&](size_t t) { return static_cast<const Stored*>(in[t]) + offset + first; };
    Stored* to = static_cast<Stored*>(out) + first;
    const Stored* a = term(0);
    if (in.size() == 2 && kind == ReduceKind::kSum) {
      const Stored* b = term(1);
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) to[i] = store(load(a[i]) + load(b[i]));
      continue;
    }
    for (int64_t i = 0; i < n; ++i) total[i] = load(a[i]);
    for (size_t t = 1; t < in.size(); ++t) {
      const Stored* b = term(t);
      if (kind == ReduceKind::kSum) {
        for (int64_t i = 0; i < n; ++i) total[i] += load(b[i]);
      } else {
        for (int64_t i = 0; i < n; ++i) total[i] = std::max(total[i], load(b[i]));
      }
    }
    for (int64_t i = 0; i < n; ++i) to[i] = store(total[i]);
  }
}

}  // namespace

void combine(DType dtype, ReduceKind kind, std::span<const void* const> in, int64_t offset, void* out, int64_t count) {
  if (dtype == DType::kF32) {
    fold<float, float>(kind, in, offset, out, count, std::identity(), std::identity());
  } else if (dtype == DType::kBF16) {
    fold<float, BF16>(kind, in, offset, out, count, [](BF16 x) { return to_float(x); }, [](float x) { return to_bf16(x); });
  } else {
    for (int64_t i = 0; i < count; ++i) {
      double total = load_element(dtype, in[0], offset + i);
      for (const void* other : in.subspan(1)) {
        const double x = load_element(dtype, other, offset + i);
        total = kind == ReduceKind::kSum ? total + x : std::max(total, x);
      }
      store_element(dtype, out, i, total);
    }
  }
}

}  // namespace mw
