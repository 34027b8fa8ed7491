// Sum, mean, max and min over any dims of a strided array.
//
//   // y[j] = sum over i and k of x[i, j, k]
//   ReduceCall call{.op = ReduceOp::kSum, .x = x, .dtype = DType::kF32, .y = y, .y_dtype = DType::kF32,
//                   .kept_sizes = {J}, .kept_strides = {K}, .kept_rank = 1, .reduced_sizes = {I, K}, .reduced_strides = {J * K, 1},
//                   .reduced_rank = 2};
//   reduce(pool, isa, call, workspace);   // reduce_workspace_bytes(call) bytes
//
// y is dense over the kept dims in their order. Sums run in f32 over at most 16 terms and in double above that, so the relative error
// of a sum of positive terms stays below 1e-6 at any length. Max and min give NaN where an element is NaN. i32 and u8 are added as f32
// (exact below 2^24). What is split among threads depends on the shape alone.
#pragma once
#include <array>
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

enum class ReduceOp { kSum, kMean, kMax, kMin };
inline constexpr int kMaxReduceDims = 8;

struct ReduceCall {
  ReduceOp op;
  const void* x;
  DType dtype;  // kF32, kBF16, kI32, kU8
  void* y;
  DType y_dtype;                                                 // any
  std::array<int64_t, kMaxReduceDims> kept_sizes, kept_strides;  // strides count elements of x
  int kept_rank;
  std::array<int64_t, kMaxReduceDims> reduced_sizes, reduced_strides;
  int reduced_rank;
};

int64_t reduce_workspace_bytes(const ReduceCall& call);
void reduce(ThreadPool& pool, Isa isa, const ReduceCall& call, void* workspace);

}  // namespace mw
