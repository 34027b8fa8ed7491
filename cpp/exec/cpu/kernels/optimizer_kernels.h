// The vector code of optimizer.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/optimizer.h"

namespace mw {

struct OptimizerKernels {
  // Elements [begin, end). [gradient is bf16]
  void (*adamw[2])(const AdamWCall& call, int64_t begin, int64_t end);
  void (*sgd[2])(const SgdCall& call, int64_t begin, int64_t end);
  double (*sum_of_squares[2])(const void* x, int64_t begin, int64_t end);
};

namespace avx2 {
extern const OptimizerKernels kOptimizerKernels;
}
namespace avx512 {
extern const OptimizerKernels kOptimizerKernels;
}
namespace avx512bf16 {  // its own conversion to bf16
extern const OptimizerKernels kOptimizerKernels;
}

}  // namespace mw
