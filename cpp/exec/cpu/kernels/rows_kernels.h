// The vector code of rows.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/rows.h"

namespace mw {

struct RowsKernels {
  // table row (+)= the rows x[order[0]], x[order[1]], ...; [x is bf16][table is bf16]
  void (*sum_rows[2][2])(const void* x, const int32_t* order, int64_t num, int64_t width, void* table_row, bool accumulate);
  // The k largest of one row.
  void (*top_k[2])(const void* x, int64_t n, int64_t k, void* values, int32_t* indices);
};

namespace avx2 {
extern const RowsKernels kRowsKernels;
}
namespace avx512 {
extern const RowsKernels kRowsKernels;
}

}  // namespace mw
