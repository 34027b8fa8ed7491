#include <immintrin.h>

#include "exec/cpu/gemm_kernels.h"
#include "exec/cpu/kernels/attention_kernels.h"

namespace mw::amx {
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
#include "exec/cpu/amx_micro.inl"

struct TileWords {
  static constexpr int kPerWord = 2;
  static constexpr bool kRowsOfPairs = true;
  static void begin() { configure(); }
};

template <>
inline void multiply_panel<TileWords>(int lanes, int rows, int64_t words, bool half_word, const void* a, int64_t a_row, int64_t a_step,
                                      const void* b, int64_t b_step, float* c, int64_t c_row, bool add_to_c) {
  MicroArgs g{.rows = 0,
              .lanes = 0,
              .words = words,
              .a = nullptr,
              .a_row = a_row,
              .a_step = a_step,
              .half_word = half_word,
              .b = nullptr,
              .b_step = b_step,
              .c = nullptr,
              .c_row = c_row,
              .add = add_to_c};
  for (int lane = 0; lane < lanes; lane += g.lanes) {
    const int rest = lanes - lane;
    g.lanes = rest == 48 ? 48 : rest < 32 ? rest : 32;
    g.b = static_cast<const char*>(b) + lane * 4;
    for (int row = 0; row < rows; row += 2 * kRows) {
      g.rows = rows - row < 2 * kRows ? rows - row : 2 * kRows;
      g.a = static_cast<const char*>(a) + row * a_row;
      g.c = c + row * c_row + lane;
      multiply_tiles(g);
    }
  }
}

#include "exec/cpu/kernels/attention.inl"
}  // namespace

AttentionKernels with_tiles(AttentionKernels kernels) {
  kernels.forward[1] = attention_forward_block<uint16_t, TileWords>;
  kernels.backward[1] = attention_backward_block<uint16_t, TileWords>;
  return kernels;
}

}  // namespace mw::amx
