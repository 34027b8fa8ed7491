#include <immintrin.h>

#include "exec/cpu/kernels/norm_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/norm.inl"
}  // namespace

constinit const NormKernels kNormKernels = make_norm_kernels();

}  // namespace mw::avx512bf16
