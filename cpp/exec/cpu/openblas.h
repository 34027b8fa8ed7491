// OpenBLAS, loaded on first use where it can be found: the yardstick beside our own GEMM in `meshwright doctor` and the benchmarks.
// Training never calls it: it repacks its operands in every call, cannot fuse an epilogue and promises no bits (a row's result changes with
// the number of rows), and over the shapes of a training step our kernels were at least as fast.
//
//   if (const OpenBlas* blas = find_openblas()) openblas_gemm(*blas, gemm, pool);
#pragma once
#include <string>

#include "exec/cpu/gemm.h"

namespace mw {

struct OpenBlas {
  std::string path;    // the name by which it was found
  std::string config;  // its own words: version and the CPU it chose
  void (*sgemm)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float* a, int a_row, const float* b,
                int b_row, float beta, float* c, int c_row);
};

// Null where no OpenBLAS is found. While it loads, OPENBLAS_* variables are hidden from it (some machines pin OPENBLAS_CORETYPE to an old
// CPU, which halves its speed) and it is told to use one thread; they are restored after.
const OpenBlas* find_openblas();

// gemm with f32 operands, each with a stride of 1, and row-major C; InternalError otherwise. Each thread of the pool calls OpenBLAS once.
void openblas_gemm(const OpenBlas& blas, const Gemm& gemm, ThreadPool& pool);

}  // namespace mw
