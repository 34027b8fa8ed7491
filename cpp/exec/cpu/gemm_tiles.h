// Pieces from which GEMM-like kernels are built: how lanes are cut into panels, where operands lie, and the loops over one tile with
// an epilogue. Plain C++; the arithmetic is behind the table of GemmKernels.
#pragma once
#include <algorithm>
#include <cstdint>

#include "exec/cpu/gemm_kernels.h"

namespace mw {

inline constexpr int64_t kStridedBlockWords = 256;  // where both operands are read in place down their columns: sets fill sooner

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// Rows of floats so far apart begin in the same sets of the caches: in place, few of them stay.
inline bool share_cache_sets(int64_t row_floats) { return row_floats % 1024 == 0; }
inline int64_t elements_per_word(Word word) { return word == Word::kF32 ? 1 : 2; }

// n lanes as panels of three steps (of 16 or 8 lanes), ended by what pads least: one of two steps, two of them, or (n within a step) one
// step.
class Panels {
 public:
  Panels(int64_t n, const GemmKernels& kernels) : n_(n), step_(kernels.panel_step), tail_(2 * step_) {
    const int64_t steps = ceil_div(n, step_), rest = steps % 3;
    if (rest == 0) {
      wide_ = count_ = steps / 3;
    } else if (steps == 1) {
      wide_ = 0, count_ = 1, tail_ = step_;
    } else {
      wide_ = steps / 3 - (rest == 1 ? 1 : 0);
      count_ = wide_ + (rest == 1 ? 2 : 1);
    }
  }
  int64_t count() const { return count_; }
  int64_t start(int64_t i) const { return i <= wide_ ? i * 3 * step_ : wide_ * 3 * step_ + (i - wide_) * tail_; }
  int width(int64_t i) const { return i < wide_ ? 3 * step_ : tail_; }
  int lanes(int64_t i) const { return static_cast<int>(std::min<int64_t>(width(i), n_ - start(i))); }  // without padding
  int64_t padded() const { return start(count_); }

 private:
  int64_t n_, wide_ = 0, count_ = 0;
  int step_, tail_;
};

// The contraction is taken in nearly equal blocks of about `wanted` words, of whole steps of a matrix unit (16 words).
inline int64_t block_words(int64_t words, int64_t wanted = kBlockWords) {
  const int64_t blocks = std::max<int64_t>(1, (words + wanted / 2) / wanted);
  return std::min(words, round_up(ceil_div(words, blocks), 16));
}

// From row to row of words packed side by side, in bytes; not so far that few rows stay in the caches.
inline int64_t packed_row_bytes(int64_t words) { return round_up(4 * words, 64) + (round_up(4 * words, 64) % 1024 == 0 ? 64 : 0); }

// The broadcast operand: in place, or packed to strips [rows / 8][words][8], or to rows.
struct RowOperand {
  const char* data;
  int64_t row_bytes, step_bytes;
  int64_t strip_bytes = 0;  // 0: in place
  bool half_word = false;   // its last word has one element only

  static RowOperand strips(const void* data, int64_t words) {
    return {static_cast<const char*>(data), 4, 4 * kTileRows, words * 4 * kTileRows};
  }
  const char* at(int64_t row, int64_t word) const {  // row: a multiple of those of one call
    return strip_bytes != 0 ? data + row / kTileRows * strip_bytes + word * step_bytes : data + row * row_bytes + word * step_bytes;
  }
};

// The lane operand: packed panels, or in place when step_bytes is not 0.
struct LaneOperand {
  const char* data;
  int64_t words;
  int64_t step_bytes = 0;

  const char* at(const Panels& panels, int64_t panel, int64_t word) const {
    const int64_t start = panels.start(panel);
    return step_bytes != 0 ? data + start * 4 + word * step_bytes : data + (start * words + word * panels.width(panel)) * 4;
  }
  int64_t step(const Panels& panels, int64_t panel) const { return step_bytes != 0 ? step_bytes : panels.width(panel) * 4; }
};

struct TileRange {
  int64_t row, row_end;  // row: a multiple of those of one call
  int64_t panel, panel_end;
};

struct Multiply {
  void (*call)(const MicroArgs&);
  int rows;             // of one call
  int64_t block_words;  // of the contraction, where C can hold partial sums

  Multiply(const GemmKernels& kernels, Word word)
      : call(word == Word::kF32 ? kernels.multiply_f32 : kernels.multiply_bf16),
        rows(kernels.rows(word)),
        block_words(kernels.block_words(word)) {}
  void operator()(const MicroArgs& g) const { call(g); }
};

// Calls body(g, row, panel) for each multiply.rows x 1 panel of the range, where g reads words [word, word + words) of both operands and
// its result is still to be set.
template <typename Body>
void for_each_micro(const Multiply& multiply, const Panels& panels, const RowOperand& a, const LaneOperand& b, TileRange range,
                    int64_t word, int64_t words, Body&& body) {
  for (int64_t row = range.row; row < range.row_end; row += multiply.rows) {
    const int rows = static_cast<int>(std::min<int64_t>(multiply.rows, range.row_end - row));
    for (int64_t panel = range.panel; panel < range.panel_end; ++panel) {
      body(MicroArgs{.rows = rows,
                     .lanes = panels.width(panel),
                     .words = words,
                     .a = a.at(row, word),
                     .a_row = a.row_bytes,
                     .a_step = a.step_bytes,
                     .half_word = a.half_word && word + words == b.words,
                     .b = b.at(panels, panel, word),
                     .b_step = b.step(panels, panel),
                     .c = nullptr,
                     .c_row = kPanelLanes,
                     .add = false,
                     .a_next = panel == range.panel ? a.at(row + multiply.rows, word) - a.at(row, word) : 0},
           row, panel);
    }
  }
}

// For each multiply.rows x 1 panel of the range, calls epilogue(tile, row, rows, panel) with the product in tile[rows][48], which
// lies in the first-level cache. The whole contraction is one pass: for long ones give few panels.
template <typename Epilogue>
void multiply_with_epilogue(const Multiply& multiply, const Panels& panels, const RowOperand& a, const LaneOperand& b, TileRange range,
                            Epilogue&& epilogue) {
  alignas(64) float tile[kMostTileRows * kPanelLanes];
  for_each_micro(multiply, panels, a, b, range, 0, b.words, [&](MicroArgs g, int64_t row, int64_t panel) {
    g.c = tile;
    multiply(g);
    epilogue(static_cast<const float*>(tile), row, g.rows, panel);
  });
}

// C[rows, lanes] (bf16, c_row elements from row to row) = or += alpha * the product. One pass over the contraction, as above.
inline void multiply_into_bf16(const Multiply& multiply, void (*store)(uint16_t*, const float*, int64_t, float, bool), const Panels& panels,
                               const RowOperand& a, const LaneOperand& b, TileRange range, uint16_t* c, int64_t c_row, float alpha,
                               bool accumulate) {
  alignas(64) float tile[kMostTileRows * kPanelLanes];
  for_each_micro(multiply, panels, a, b, range, 0, b.words, [&](MicroArgs g, int64_t row, int64_t panel) {
    const int lanes = panels.lanes(panel);
    uint16_t* const out = c + row * c_row + panels.start(panel);
    if (lanes == g.lanes && alpha == 1.0f && !accumulate) {
      g.c_bf16 = out, g.c_row = c_row;
      return multiply(g);
    }
    g.c = tile;
    multiply(g);
    for (int r = 0; r < g.rows; ++r) store(out + r * c_row, tile + r * kPanelLanes, lanes, alpha, accumulate);
  });
}

// C[rows, lanes] (f32, c_row floats from row to row) = or += the product, in blocks of the contraction. C holds the partial sums.
inline void multiply_into(const Multiply& multiply, void (*store)(float*, const float*, int64_t, float, bool), const Panels& panels,
                          const RowOperand& a, const LaneOperand& b, TileRange range, float* c, int64_t c_row, bool accumulate) {
  alignas(64) float tile[kMostTileRows * kPanelLanes];
  const bool strided = b.step_bytes != 0 && a.strip_bytes == 0 && a.step_bytes > 4;
  const int64_t wanted = strided ? kStridedBlockWords : multiply.block_words;
  const int64_t step = block_words(b.words, wanted);
  for (int64_t word = 0; word < b.words; word += step) {
    for_each_micro(multiply, panels, a, b, range, word, std::min(step, b.words - word), [&](MicroArgs g, int64_t row, int64_t panel) {
      const int lanes = panels.lanes(panel);
      float* const out = c + row * c_row + panels.start(panel);
      g.add = accumulate || word > 0;
      if (lanes == g.lanes) {
        g.c = out, g.c_row = c_row;
        return multiply(g);
      }
      g.c = tile;  // the panel is wider than C
      if (g.add) {
        for (int r = 0; r < g.rows; ++r) std::copy_n(out + r * c_row, lanes, tile + r * kPanelLanes);
      }
      multiply(g);
      for (int r = 0; r < g.rows; ++r) store(out + r * c_row, tile + r * kPanelLanes, lanes, 1.0f, false);
    });
  }
}

// The row operand packed as the kernels of `word` want it: the bytes of `rows`, and where they lie.
inline int64_t packed_rows_bytes(const GemmKernels& kernels, Word word, int64_t rows, int64_t words) {
  return kernels.rows_of_pairs(word) ? rows * packed_row_bytes(words) : round_up(rows, kTileRows) * words * 4;
}
inline RowOperand packed_rows(const GemmKernels& kernels, Word word, const void* data, int64_t words) {
  if (!kernels.rows_of_pairs(word)) return RowOperand::strips(data, words);
  return {.data = static_cast<const char*>(data), .row_bytes = packed_row_bytes(words), .step_bytes = 4};
}

// The packer for an operand of `bf16` elements (else f32) to words: in panels and strips.
using PackFunction = void (*)(const PackArgs&);
inline PackFunction pack_function(const GemmKernels& kernels, bool bf16, Word word) {
  if (word == Word::kF32) return bf16 ? kernels.pack_bf16_as_f32 : kernels.pack_f32;
  return bf16 ? kernels.pack_bf16 : kernels.pack_f32_as_bf16;
}

// Packs rows of an operand of `bf16` elements (else f32) to what packed_rows gave, from that row and word on. Of `from`: what is read.
inline void pack_into_rows(const GemmKernels& kernels, Word word, bool bf16, const RowOperand& to, int64_t first_row, int64_t first_word,
                           PackArgs from) {
  from.panel = const_cast<char*>(to.at(first_row, first_word));
  from.width = kTileRows;
  from.strip_stride = to.strip_bytes != 0 ? to.strip_bytes : to.row_bytes;
  kernels.rows_of_pairs(word) ? kernels.pack_rows_bf16(from) : pack_function(kernels, bf16, word)(from);
}

}  // namespace mw
