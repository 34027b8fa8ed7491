// The vector code of reduce.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/reduce.h"

namespace mw {

struct ReduceKernels {
  // Of `count` elements at a stride. [0: sum, 1: max, 2: min][dtype: f32, bf16, i32, u8]
  double (*run[3][4])(const void* x, int64_t stride, int64_t count);
  // totals[j] = op(totals[j], x[i * row_stride + j]) over i < rows, for j < columns.
  void (*columns[3][4])(const void* x, int64_t row_stride, int64_t rows, int64_t columns, double* totals);
};

namespace avx2 {
extern const ReduceKernels kReduceKernels;
}
namespace avx512 {
extern const ReduceKernels kReduceKernels;
}

}  // namespace mw
