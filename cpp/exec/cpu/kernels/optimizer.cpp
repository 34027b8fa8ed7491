#include "exec/cpu/kernels/optimizer.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernels/optimizer_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTile = 65536;  // elements

const OptimizerKernels& optimizer_kernels(Isa isa) {
  return isa == Isa::kAvx2 ? avx2::kOptimizerKernels : isa == Isa::kAvx512 ? avx512::kOptimizerKernels : avx512bf16::kOptimizerKernels;
}
int is_bf16(DType dtype) {
  MW_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "gradients are f32 or bf16, not ", dtype_name(dtype));
  return dtype == DType::kBF16;
}
int64_t num_tiles(int64_t count) { return (count + kTile - 1) / kTile; }

template <typename Call>
void run_tiles(ThreadPool& pool, void (*kernel)(const Call&, int64_t, int64_t), const Call& call) {
  pool.run(num_tiles(call.count), [&](int64_t tile, int) { kernel(call, tile * kTile, std::min(call.count, (tile + 1) * kTile)); });
}

}  // namespace

void adamw(ThreadPool& pool, Isa isa, const AdamWCall& call) {
  run_tiles(pool, optimizer_kernels(isa).adamw[is_bf16(call.gradient_dtype)], call);
}
void sgd(ThreadPool& pool, Isa isa, const SgdCall& call) {
  run_tiles(pool, optimizer_kernels(isa).sgd[is_bf16(call.gradient_dtype)], call);
}

int64_t sum_of_squares_workspace_bytes(std::span<const SquaredArray> arrays) {
  int64_t tiles = 0;
  for (const SquaredArray& array : arrays) tiles += num_tiles(array.count);
  return tiles * 8;
}

void sum_of_squares(ThreadPool& pool, Isa isa, std::span<const SquaredArray> arrays, void* workspace, float* out) {
  const int64_t tiles = sum_of_squares_workspace_bytes(arrays) / 8;
  for (const SquaredArray& array : arrays) is_bf16(array.dtype);
  double* const partials = static_cast<double*>(workspace);
  pool.run(tiles, [&](int64_t tile, int) {
    int64_t local = tile;
    const SquaredArray* array = arrays.data();
    for (; local >= num_tiles(array->count); ++array) local -= num_tiles(array->count);
    partials[tile] = optimizer_kernels(isa).sum_of_squares[is_bf16(array->dtype)](array->data, local * kTile,
                                                                                  std::min(array->count, (local + 1) * kTile));
  });
  double sum = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) sum += partials[tile];
  *out = static_cast<float>(sum);
}

}  // namespace mw
