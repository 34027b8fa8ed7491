#include "exec/cpu/kernels/norm.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernels/norm_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTileElements = 32768;
constexpr int64_t kMostPartials = 32;

const NormKernels& norm_kernels(Isa isa) {
  return isa == Isa::kAvx2 ? avx2::kNormKernels : isa == Isa::kAvx512 ? avx512::kNormKernels : avx512bf16::kNormKernels;
}

int is_bf16(DType dtype) {
  MW_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "norms take f32 or bf16, not ", dtype_name(dtype));
  return dtype == DType::kBF16;
}

int weight_kind(const void* weight, DType dtype) { return weight == nullptr ? 2 : is_bf16(dtype); }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of one partial sum: a function of the shape alone.
int64_t rows_per_partial(int64_t rows, int64_t n) {
  return std::max({int64_t{1}, ceil_div(rows, kMostPartials), ceil_div(kTileElements, std::max<int64_t>(n, 1))});
}
int64_t num_partials(int64_t rows, int64_t n) { return ceil_div(rows, rows_per_partial(rows, n)); }

void run_forward(ThreadPool& pool, NormKernels::Forward kernel, const NormCall& call) {
  const int64_t rows_per_tile = std::max<int64_t>(1, kTileElements / std::max<int64_t>(call.n, 1));
  pool.run(ceil_div(call.rows, rows_per_tile),
           [&](int64_t tile, int) { kernel(call, tile * rows_per_tile, std::min(call.rows, (tile + 1) * rows_per_tile)); });
}

void run_backward(ThreadPool& pool, const NormKernels& kernels, NormKernels::Backward kernel, const NormGradientCall& call,
                  void* workspace) {
  const int64_t per_tile = rows_per_partial(call.rows, call.n), tiles = std::max<int64_t>(1, num_partials(call.rows, call.n));
  float* const dw = static_cast<float*>(workspace);
  float* const db = call.dbias != nullptr ? dw + tiles * call.n : nullptr;
  pool.run(tiles, [&](int64_t tile, int) {
    kernel(call, tile * per_tile, std::min(call.rows, (tile + 1) * per_tile), call.dweight != nullptr ? dw + tile * call.n : nullptr,
           db != nullptr ? db + tile * call.n : nullptr);
  });
  if (call.dweight == nullptr && call.dbias == nullptr) return;
  constexpr int64_t kColumns = 1024;
  pool.run(ceil_div(call.n, kColumns), [&](int64_t tile, int) {
    const int64_t first = tile * kColumns, count = std::min(kColumns, call.n - first), skip = first * dtype_bytes(call.dweight_dtype);
    for (const auto& [out, partials] : {std::pair{call.dweight, dw}, std::pair{call.dbias, db}}) {
      if (out == nullptr) continue;
      kernels.add_partials(static_cast<char*>(out) + skip, call.dweight_dtype, partials + first, tiles, call.n, count, call.accumulate);
    }
  });
}

}  // namespace

void rms_norm(ThreadPool& pool, Isa isa, const NormCall& call) {
  run_forward(pool, norm_kernels(isa).rms[is_bf16(call.dtype)][weight_kind(call.weight, call.weight_dtype)], call);
}
void layer_norm(ThreadPool& pool, Isa isa, const NormCall& call) {
  run_forward(pool, norm_kernels(isa).layer[is_bf16(call.dtype)][is_bf16(call.weight_dtype)], call);
}

int64_t norm_backward_workspace_bytes(int64_t rows, int64_t n) { return 2 * std::max<int64_t>(1, num_partials(rows, n)) * n * 4; }

void rms_norm_backward(ThreadPool& pool, Isa isa, const NormGradientCall& call, void* workspace) {
  const NormKernels& kernels = norm_kernels(isa);
  is_bf16(call.dweight_dtype);
  MW_CHECK(call.dbias == nullptr, "rms_norm has no bias");
  MW_CHECK(call.weight != nullptr || call.dweight == nullptr, "rms_norm without a weight has no gradient of one");
  run_backward(pool, kernels, kernels.rms_backward[is_bf16(call.dtype)][weight_kind(call.weight, call.weight_dtype)], call, workspace);
}
void layer_norm_backward(ThreadPool& pool, Isa isa, const NormGradientCall& call, void* workspace) {
  const NormKernels& kernels = norm_kernels(isa);
  is_bf16(call.dweight_dtype);
  run_backward(pool, kernels, kernels.layer_backward[is_bf16(call.dtype)][is_bf16(call.weight_dtype)], call, workspace);
}

}  // namespace mw
