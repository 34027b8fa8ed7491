#include <immintrin.h>

#include "exec/cpu/kernels/reduce_kernels.h"

namespace mw::avx2 {
namespace {
#include "exec/cpu/vec_avx2.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/reduce.inl"
}  // namespace

constinit const ReduceKernels kReduceKernels = make_reduce_kernels();

}  // namespace mw::avx2
