#include <immintrin.h>

#include "exec/cpu/kernels/expert_rows_kernels.h"

namespace mw::avx2 {
namespace {
#include "exec/cpu/vec_avx2.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/expert_rows.inl"
}  // namespace

constinit const ExpertRowsKernels kExpertRowsKernels = make_expert_rows_kernels();

}  // namespace mw::avx2
