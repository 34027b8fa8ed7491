// Rows of tables: look-up, its gradient, and the k largest of each row.
//
//   gather_rows(pool, {.table = e, .ids = ids, .y = x, .rows = vocab, .count = tokens, .row_bytes = embed * 2});
//   scatter_rows(pool, isa, {.x = dx, .ids = ids, .table = de, .rows = vocab, .count = tokens, .width = embed, ...}, workspace);
//
// An id counts from `first_id`: a shard of the vocabulary holds ids [first_id, first_id + rows). Others give a row of zeros, or are
// left out of the sum.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

struct GatherRowsCall {
  const void* table;
  const int32_t* ids;
  void* y;
  int64_t rows;   // of the table
  int64_t count;  // ids
  int64_t row_bytes;
  int64_t first_id = 0;
};
void gather_rows(ThreadPool& pool, const GatherRowsCall& call);

// table[id] = sum of the rows x[i] with ids[i] = id, added in f32 in the order of i: the same bits for every number of threads.
struct ScatterRowsCall {
  const void* x;  // [count, width]
  const int32_t* ids;
  void* table;  // [rows, width]
  int64_t rows, count, width;
  DType x_dtype, table_dtype;  // kF32 or kBF16
  int64_t first_id = 0;
  bool accumulate = false;  // false: rows that no id names become zero
};
int64_t scatter_rows_workspace_bytes(int64_t count);
void scatter_rows(ThreadPool& pool, Isa isa, const ScatterRowsCall& call, void* workspace);

// values[row, 0..k) descending and their places; the lowest index first at a tie; NaN counts as the largest.
struct TopKCall {
  const void* x;     // [rows, n]
  void* values;      // [rows, k] of the same dtype; null: not wanted
  int32_t* indices;  // [rows, k]
  int64_t rows, n, k;
  DType dtype;  // kF32 or kBF16
};
void top_k(ThreadPool& pool, Isa isa, const TopKCall& call);

// indices[row] = the place of the largest of x[row, 0..n), the lowest at a tie.
void argmax_rows(ThreadPool& pool, Isa isa, DType dtype, const void* x, int64_t rows, int64_t n, int32_t* indices);

}  // namespace mw
