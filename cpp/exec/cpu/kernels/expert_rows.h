// Dispatch and combine of a mixture of experts. All calls share the order of the rows: the choices of all tokens sorted by expert, those of
// one expert as they stand in memory.
//
//   sort_by_expert(indices, choices, experts, places, workspace);    // places[choice] = row
//   dispatch_rows(pool, isa, {...});  combine_rows(pool, isa, {...});
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// Counting sort. `next` holds experts + 1 numbers; afterwards next[e] is the first row behind those of expert e. InternalError for an index
// outside 0 .. experts.
void sort_by_expert(const int32_t* indices, int64_t choices, int64_t experts, int32_t* places, int32_t* next);

struct ExpertRowsCall {
  const int32_t* places;  // [tokens, k]
  const float* weights;   // [tokens, k]; null: 1
  int64_t tokens, k, width;
  DType dtype;  // of rows and tokens: kF32 or kBF16; any where rows are only copied
};

// rows[places[t, j]] = weights[t, j] * x[t].
void dispatch_rows(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* x, void* rows);
// y[t] = sum over j of weights[t, j] * rows[places[t, j]], in the order of j, in f32.
void combine_rows(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* rows, void* y);
// products[t, j] = the inner product of rows[places[t, j]] and x[t].
void expert_row_products(ThreadPool& pool, Isa isa, const ExpertRowsCall& call, const void* rows, const void* x, float* products);

}  // namespace mw
