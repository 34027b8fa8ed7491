#include <immintrin.h>

#include "exec/cpu/gemm_kernels.h"
#include "exec/cpu/kernels/attention_kernels.h"

namespace mw::avx2 {
namespace {
#include "exec/cpu/vec_avx2.inl"
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
    .has_bf16_pairs = false,
    .forward = {attention_forward_block<float, F32Words>, attention_forward_block<uint16_t, F32Words>},
    .backward = {attention_backward_block<float, F32Words>, attention_backward_block<uint16_t, F32Words>},
    .sum_rows = {sum_rows<float>, sum_rows<uint16_t>},
};

}  // namespace mw::avx2
