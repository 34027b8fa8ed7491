#include <immintrin.h>

#include "exec/cpu/gemm_kernels.h"

namespace mw::avx2 {
namespace {
#include "exec/cpu/vec_avx2.inl"
//
#include "exec/cpu/kernels/storage.inl"
//
#include "exec/cpu/gemm_micro.inl"
//
#include "exec/cpu/gemm_pack.inl"
//
#include "exec/cpu/store_row.inl"
//
#include "exec/cpu/fma_peak.inl"
}  // namespace

const GemmKernels kGemmKernels = {
    .isa = Isa::kAvx2,
    .has_bf16_pairs = false,
    .multiply_f32 = multiply<F32Words>,
    .multiply_bf16 = nullptr,
    .packs_f32 = true,
    .near_words = 2 * kPanelLanes * kBlockWords,  // 512 KiB of second-level cache on Zen 3
    .panel_step = kLanes,
    .pack_f32 = pack<F32ToF32>,
    .pack_bf16 = pack<Bf16ToPairs>,
    .pack_bf16_as_f32 = pack<Bf16ToF32>,
    .pack_f32_as_bf16 = pack<F32ToPairs>,
    .store_f32 = store_row<float>,
    .store_bf16 = store_row<uint16_t>,
    .fma_peak = peak<F32Words>,
    .bf16_peak = nullptr,
};

}  // namespace mw::avx2
