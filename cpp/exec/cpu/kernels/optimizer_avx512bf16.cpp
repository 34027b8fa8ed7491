#include <immintrin.h>

#include "exec/cpu/kernels/optimizer_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/optimizer.inl"
}  // namespace

constinit const OptimizerKernels kOptimizerKernels = make_optimizer_kernels();

}  // namespace mw::avx512bf16
