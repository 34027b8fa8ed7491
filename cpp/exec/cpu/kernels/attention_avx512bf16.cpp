#include <immintrin.h>

#include "exec/cpu/gemm_kernels.h"
#include "exec/cpu/kernels/attention_kernels.h"

namespace mw::avx512bf16 {
namespace {
#include "exec/cpu/vec_avx512.inl"
//
#include "exec/cpu/kernels/math.inl"
//
#include "exec/cpu/gemm_micro.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/gemm_pack.inl"
//
#include "exec/cpu/store_row.inl"
//
#include "exec/cpu/kernels/attention.inl"
}  // namespace

const AttentionKernels kAttentionKernels = {
    .has_bf16_pairs = true,
    .forward = {attention_forward_block<float, F32Words>, attention_forward_block<uint16_t, Bf16Words>},
    .backward = {attention_backward_block<float, F32Words>, attention_backward_block<uint16_t, Bf16Words>},
    .sum_rows = {sum_rows<float>, sum_rows<uint16_t>},
};

}  // namespace mw::avx512bf16
