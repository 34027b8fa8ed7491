// Rotary position embedding (Su et al. 2021): rotates pairs of x[rows, heads, head_dim] by position * inv_freq.
//
//   rope_table(pool, isa, positions, rows, inv_freq, rotary / 2, attention_factor, table);   // rope_table_bytes(rows, rotary) bytes
//   rope(pool, isa, {.x = q, .y = q, .table = table, .rows = rows, .heads = heads, .head_dim = 64, .rotary = 64, .dtype = DType::kBF16});
//
// One table serves q and k of every layer. The angle is rounded to f32 as transformers does; its cosine and sine are exact to rounding
// for positions up to 2^40 and beyond.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// table[row][0][i] = factor * cos(positions[row] * inv_freq[i]), table[row][1][i] the sine; i < pairs. f32.
int64_t rope_table_bytes(int64_t rows, int64_t rotary);
void rope_table(ThreadPool& pool, Isa isa, const int32_t* positions, int64_t rows, const float* inv_freq, int64_t pairs, float factor,
                float* table);

struct RopeCall {
  const void* x;
  void* y;  // may be x
  const float* table;
  int64_t rows, heads, head_dim;
  int64_t rotary;                // the first `rotary` (even) of head_dim turn, the rest is copied
  DType dtype;                   // kF32 or kBF16
  bool interleaved = false;      // pairs (2i, 2i + 1) instead of (i, i + rotary / 2)
  bool inverse = false;          // turns back: the gradient
  int64_t x_row = 0, y_row = 0;  // elements from row to row; 0: heads * head_dim
};
void rope(ThreadPool& pool, Isa isa, const RopeCall& call);

}  // namespace mw
