#include "exec/cpu/kernels/expert_rows.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "exec/cpu/kernels/expert_rows_kernels.h"

namespace mw {
namespace {

const ExpertRowsKernels& expert_rows_kernels(Isa isa) { return isa == Isa::kAvx2 ? avx2::kExpertRowsKernels : avx512::kExpertRowsKernels; }

// Calls f(token) for all tokens, some at a time.
template <typename F>
void for_tokens(ThreadPool& pool, const ExpertRowsCall& call, F&& f) {
  constexpr int64_t kTileBytes = 1 << 18;
  const int64_t per_tile = std::max<int64_t>(1, kTileBytes / std::max<int64_t>(1, call.k * call.width * dtype_bytes(call.dtype)));
  pool.run((call.tokens + per_tile - 1) / per_tile, [&](int64_t tile, int) {
    for (int64_t token = tile * per_tile; token < std::min(call.tokens, (tile + 1) * per_tile); ++token) f(token);
  });
}

}  // namespace

void sort_by_expert(const int32_t* indices, int64_t choices, int64_t experts, int32_t* places, int32_t* next) {
  std::fill_n(next, experts + 1, 0);
  for (int64_t i = 0; i < choices; ++i) {
    MW_CHECK(indices[i] >= 0 && indices[i] < experts, "choice ", i, " is expert ", indices[i], " of ", experts);
    ++next[indices[i] + 1];
  }
  for (int64_t e = 1; e <= experts; ++e) next[e] += next[e - 1];
  for (int64_t i = 0; i < choices; ++i) places[i] = next[indices[i]]++;
}

void dispatch_rows(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* x, void* rows) {
  const int64_t bytes = call.width * dtype_bytes(call.dtype);
  const auto scale = expert_rows_kernels(isa).scale[call.dtype == DType::kBF16];
  for_tokens(pool, call, [&](int64_t token) {
    const char* const from = static_cast<const char*>(x) + token * bytes;
    for (int64_t i = token * call.k; i < (token + 1) * call.k; ++i) {
      char* const to = static_cast<char*>(rows) + call.places[i] * bytes;
      if (call.weights == nullptr)
        std::memcpy(to, from, static_cast<size_t>(bytes));
      else
        scale(from, call.weights[i], call.width, to);
    }
  });
}

void combine_rows(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* rows, void* y) {
  const auto sum = expert_rows_kernels(isa).sum[call.dtype == DType::kBF16];
  for_tokens(pool, call, [&](int64_t token) {
    const int64_t first = token * call.k;
    sum(rows, call.places + first, call.weights == nullptr ? nullptr : call.weights + first, call.k, call.width,
        static_cast<char*>(y) + token * call.width * dtype_bytes(call.dtype));
  });
}

void expert_row_products(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* rows, const void* x, float* products) {
  const int64_t bytes = call.width * dtype_bytes(call.dtype);
  const auto product = expert_rows_kernels(isa).product[call.dtype == DType::kBF16];
  for_tokens(pool, call, [&](int64_t token) {
    for (int64_t i = token * call.k; i < (token + 1) * call.k; ++i) {
      products[i] =
          product(static_cast<const char*>(rows) + call.places[i] * bytes, static_cast<const char*>(x) + token * bytes, call.width);
    }
  });
}

}  // namespace mw
