#include <immintrin.h>

#include "exec/cpu/kernels/rope_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/rope.inl"
}  // namespace

constinit const RopeKernels kRopeKernels = make_rope_kernels();

}  // namespace mw::avx512bf16
