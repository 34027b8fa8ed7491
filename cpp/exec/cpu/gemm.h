// C = alpha * A B, or C += alpha * A B, for f32 and bf16 matrices of any strides.
//
//   Gemm g{.m = tokens, .n = mlp, .k = embed,                                   // y = x W^T
//          .a = {x, DType::kF32, /*row=*/embed, /*col=*/1},
//          .b = {w, DType::kF32, /*row=*/1, /*col=*/embed},
//          .c = {y, DType::kF32, /*row=*/mlp, /*col=*/1}};
//   const GemmPlan plan = plan_gemm(g, isa);
//   run_gemm(g, plan, workspace_of(plan.workspace_bytes), pool);                 // allocates nothing
//
// Sums are FP32 and run in the order of k, in one chain per element of C: a row of C has the same bits whatever m is and whatever
// the number of threads. Operands that are both bf16 are multiplied as pairs where the CPU can (two terms per step of the chain).
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/gemm_kernels.h"

namespace mw {

// Strides count elements. The fast cases have row or col equal to 1; anything else is packed element by element.
struct MatrixIn {
  const void* data;
  DType type;  // kF32 or kBF16
  int64_t row, col;
  int64_t batch = 0;  // 0: the same matrix for all
};
struct MatrixOut {
  void* data;
  DType type;
  int64_t row, col;  // one of them 1
  int64_t batch = 0;
};

struct Gemm {
  int64_t m, n, k;
  int64_t batch = 1;
  MatrixIn a;  // [m, k]
  MatrixIn b;  // [k, n]
  MatrixOut c;
  float alpha = 1.0f;
  bool accumulate = false;
};

// How a product is computed: a function of its shape, strides, types and the instruction set alone (never of threads or pointers).
struct GemmPlan {
  Isa isa;
  Word word;
  bool swapped;         // computes C^T = B^T A^T, because C's columns are the contiguous ones
  bool pack_a, pack_b;  // else read in place
  int64_t tile_rows;    // a tile is tile_rows rows by tile_panels panels
  int64_t tile_panels;
  int64_t a_bytes, b_bytes;
  int64_t workspace_bytes;
};

// UserError for types or strides that no kernel takes.
GemmPlan plan_gemm(const Gemm& gemm, Isa isa);

// `workspace` is aligned to 64 bytes and has plan.workspace_bytes; it may be null where that is 0.
void run_gemm(const Gemm& gemm, const GemmPlan& plan, void* workspace, ThreadPool& pool);

}  // namespace mw
