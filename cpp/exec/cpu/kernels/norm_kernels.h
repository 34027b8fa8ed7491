// The vector code of norm.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/norm.h"

namespace mw {

struct NormKernels {
  // Rows [begin, end).
  using Forward = void (*)(const NormCall& call, int64_t begin, int64_t end);
  // Also adds the rows' shares to partial_dweight and partial_dbias, [n] f32 that the function clears first; null: not wanted.
  using Backward = void (*)(const NormGradientCall& call, int64_t begin, int64_t end, float* partial_dweight, float* partial_dbias);
  Forward rms[2][3], layer[2][2];  // [x is bf16][weight is bf16; 2: there is none]
  Backward rms_backward[2][3], layer_backward[2][2];
  // out[i] (+)= sum over p of partials[p * stride + i], i < n
  void (*add_partials)(void* out, DType dtype, const float* partials, int64_t count, int64_t stride, int64_t n, bool accumulate);
};

namespace avx2 {
extern const NormKernels kNormKernels;
}
namespace avx512 {
extern const NormKernels kNormKernels;
}
namespace avx512bf16 {  // its own conversion to bf16
extern const NormKernels kNormKernels;
}

}  // namespace mw
