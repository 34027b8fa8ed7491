#include <immintrin.h>
#include <math.h>

#include "exec/cpu/kernels/elementwise_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/elementwise.inl"
}  // namespace

constinit const ElementwiseKernels kElementwiseKernels = make_elementwise_kernels();

}  // namespace mw::avx512bf16
