#include <immintrin.h>

#include "exec/cpu/kernels/gated_activation_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/gated_activation.inl"
}  // namespace

constinit const GatedActivationKernels kGatedActivationKernels = make_gated_activation_kernels();

}  // namespace mw::avx512bf16
