#include <immintrin.h>

#include "exec/cpu/kernels/cross_entropy_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/kernels/cross_entropy.inl"
}  // namespace

const CrossEntropyKernels kCrossEntropyKernels = {
    .exp_tile = exp_tile<false>,
    .exp_capped_tile = exp_tile<true>,
    .cap = cap,
    .dot = {{dot<float, float>, dot<float, uint16_t>}, {dot<uint16_t, float>, dot<uint16_t, uint16_t>}},
    .scale = {scale_row<float>, scale_row<uint16_t>},
    .subtract = {subtract_row<float>, subtract_row<uint16_t>},
    .combine = {{combine_row<float, float>, combine_row<float, uint16_t>}, {combine_row<uint16_t, float>, combine_row<uint16_t, uint16_t>}},
};

}  // namespace mw::avx512bf16
