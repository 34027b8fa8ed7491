#include <immintrin.h>

#include "exec/cpu/gemm_kernels.h"

namespace mw::amx {
namespace {
#include "exec/cpu/vec_avx512.inl"

//
#include "exec/cpu/gemm_micro.inl"
//
#include "exec/cpu/amx_micro.inl"

void multiply_pairs(const MicroArgs& g) {
  configure();
  multiply_tiles(g);
}

double tile_peak(int64_t rounds) {
  configure();
  Sums<2, 2>::clear();
  alignas(64) const char operand[kRows * kStepBytes] = {};
  _tile_loadd(6, operand, kStepBytes);
  _tile_loadd(7, operand, kStepBytes);
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
  }
  return 4.0 * 2 * kRows * kTileFloats * 2 * kStepWords * static_cast<double>(rounds);
}

}  // namespace

GemmKernels with_tiles(GemmKernels kernels) {
  kernels.isa = Isa::kAmx;
  kernels.multiply_f32 = multiply<F32WordsFetching>;
  kernels.packs_f32 = true;
  kernels.f32_block_words = 1024;
  kernels.pair_rows = 2 * kRows;
  kernels.multiply_bf16 = multiply_pairs;
  kernels.pack_rows_bf16 = pack_rows;
  kernels.bf16_peak = tile_peak;
  return kernels;
}

}  // namespace mw::amx
