// Products of rows that belong to groups (the experts of a mixture), where only the run tells how many rows each group has.
//
//   y[r, n] (+)= sum_k x[r, k] w[g(r), k, n]              GroupedGemm
//   w[g, m, n] (+)= sum_{r: g(r) = g} a[r, m] b[r, n]     GroupedOuter
//
//   const GroupedPlan plan = plan_grouped(g, isa, pool.threads());
//   run_grouped(g, plan, row_groups, workspace_of(plan.workspace_bytes), pool);    // row_groups ascending; allocates nothing
//
// No row is padded: a tile is at most 512 rows of one group by a few panels, which the thread that takes it packs for itself, and
// groups with many rows go first. A row has the same bits whatever the other rows are (gemm.h): sums are FP32, in the order of k or of the
// rows.
#pragma once
#include <cstdint>

#include "base/thread_pool.h"
#include "exec/cpu/gemm.h"

namespace mw {

struct GroupedGemm {
  int64_t rows, n, k, groups;
  MatrixIn x;   // [rows, k] with col 1
  MatrixIn w;   // [k, n], batch: from group to group
  MatrixOut y;  // [rows, n] with col 1
  bool accumulate = false;
};

struct GroupedOuter {
  int64_t rows, m, n, groups;
  MatrixIn a;   // [rows, m] with col 1
  MatrixIn b;   // [rows, n] with col 1
  MatrixOut w;  // [m, n], row or col 1, batch: from group to group
  bool accumulate = false;
};

// A function of shapes, types, the instruction set and the number of threads alone.
struct GroupedPlan {
  Isa isa;
  Word word;
  bool widen_rows;      // the row operand is copied as f32: bf16 without pairs
  bool pack_a, pack_b;  // a: of GroupedOuter
  int64_t tile_lanes;
  int64_t rows_at, scratch_at;                  // bytes into the workspace, behind the groups: widened rows, memory of the threads
  int64_t panel_bytes, strip_bytes, sum_bytes;  // of one thread
  int64_t workspace_bytes;

  int64_t scratch_bytes() const { return panel_bytes + strip_bytes + sum_bytes; }
};

GroupedPlan plan_grouped(const GroupedGemm& g, Isa isa, int threads);
GroupedPlan plan_grouped(const GroupedOuter& g, Isa isa, int threads);

// Rows of `groups`, at the end, are of no group: they give zeros, or add nothing. InternalError when row_groups[rows] is not ascending
// within 0 .. groups.
void run_grouped(const GroupedGemm& g, const GroupedPlan& plan, const int32_t* row_groups, void* workspace, ThreadPool& pool);
void run_grouped(const GroupedOuter& g, const GroupedPlan& plan, const int32_t* row_groups, void* workspace, ThreadPool& pool);

}  // namespace mw
