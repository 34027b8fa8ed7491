// The innermost GEMM kernels of one instruction set. Everything above them (tiles, blocking, threads) is plain C++ in gemm.cpp.
//
// They work on 32-bit *words*: 1 float, or 2 bf16 that follow each other in the contraction. The row operand is broadcast, word by
// word, from wherever it lies (any byte strides); the lane operand is a *panel* [words][width] with width 16, 32 or 48 (AVX2: 8, 16 or 24),
// or a row-major matrix whose rows are the contraction. Each element of C is one chain of multiply-adds in the order of k, whatever the
// number of rows or lanes: so the bits of a row depend on that row and the lane operand alone. A matrix unit (AMX) adds the products of 16
// words before they enter the chain.
#pragma once
#include <cstdint>

#include "exec/cpu/isa.h"

namespace mw {

enum class Word { kF32, kBf16Pair };
inline constexpr int kTileRows = 8;
inline constexpr int kMostTileRows = 32;
inline constexpr int kPanelLanes = 48;       // at most
inline constexpr int64_t kBlockWords = 512;  // of the contraction: a panel of them takes 96 KiB of the second-level cache

struct MicroArgs {
  int rows;   // 1..8, of bf16 pairs 1..GemmKernels::pair_rows
  int lanes;  // of a panel
  int64_t words;
  const void* a;
  int64_t a_row;   // bytes from row to row of A
  int64_t a_step;  // bytes from word to word of A
  bool half_word;  // bf16: only the first half of A's last word exists
  const void* b;
  int64_t b_step;  // bytes from word to word of B
  float* c;
  int64_t c_row;               // elements from row to row of C
  bool add;                    // start from what C holds, not from 0
  int64_t a_next = 0;          // bytes from these rows of A to those read next, for fetching; 0: unknown
  uint16_t* c_bf16 = nullptr;  // instead of c, without add: the product as bf16
};

// One panel, or strips of rows (width 8), from a matrix of any strides, in elements; lanes beyond `lanes` and a last half word are zero.
struct PackArgs {
  void* panel = nullptr;
  int width = 0;
  int64_t strip_stride = 0;  // bytes from strip to strip, where `lanes` fill several
  int64_t lanes;
  int64_t depth;  // elements of the contraction
  const void* source;
  int64_t depth_stride;
  int64_t lane_stride;
};

struct GemmKernels {
  Isa isa;
  bool has_bf16_pairs;
  void (*multiply_f32)(const MicroArgs&);
  void (*multiply_bf16)(const MicroArgs&);  // null where has_bf16_pairs is false
  bool packs_f32 = false;                   // f32 operands are faster packed than in place (Intel, AVX2; not Zen 5)
  int64_t f32_block_words = kBlockWords;
  int64_t near_words = 4 * kPanelLanes * kBlockWords;  // of panels that stay in the second-level cache
  int panel_step = kPanelLanes / 3;                    // panels have 3, 2 or 1 times as many lanes
  int pair_rows = kTileRows;                           // rows of one call of multiply_bf16, at most kMostTileRows
  void (*pack_f32)(const PackArgs&);                   // f32 -> f32 words
  void (*pack_bf16)(const PackArgs&);                  // bf16 -> pairs
  void (*pack_bf16_as_f32)(const PackArgs&);           // bf16 -> f32 words
  void (*pack_f32_as_bf16)(const PackArgs&);           // f32 -> pairs, rounded
  // Not null: multiply_bf16 wants the words of a row side by side (a_step 4), and this packs rows so, strip_stride bytes apart.
  void (*pack_rows_bf16)(const PackArgs&) = nullptr;
  // y = (accumulate ? y : 0) + alpha * x, n numbers
  void (*store_f32)(float* y, const float* x, int64_t n, float alpha, bool accumulate);
  void (*store_bf16)(uint16_t* y, const float* x, int64_t n, float alpha, bool accumulate);
  double (*fma_peak)(int64_t rounds);   // multiply-adds in registers only; returns the FLOPs done
  double (*bf16_peak)(int64_t rounds);  // the same for pairs; null without them

  int64_t block_words(Word word) const { return word == Word::kF32 ? f32_block_words : kBlockWords; }
  int rows(Word word) const { return word == Word::kF32 ? kTileRows : pair_rows; }
  bool rows_of_pairs(Word word) const { return word == Word::kBf16Pair && pack_rows_bf16 != nullptr; }
};

// The kernels of an instruction set, which must be available.
const GemmKernels& gemm_kernels(Isa isa);

namespace avx2 {
extern const GemmKernels kGemmKernels;
}
namespace avx512 {
extern const GemmKernels kGemmKernels;
}
namespace avx512bf16 {
extern const GemmKernels kGemmKernels;
}

namespace amx {
GemmKernels with_tiles(GemmKernels kernels);  // those of avx512bf16, but for products of bf16
}

}  // namespace mw
