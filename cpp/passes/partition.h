// partition: from the global Plan to that of every rank (all ranks run the same Programs; what differs is read from the rank's
// coordinates at run time).
//
//   %2 = dot(%x, %w) {contract=["mlp"]} : f32[batch=8, seq=256, embed=64]
//     ->  tensor=2:  %2 = dot(%x, %w) ... : f32[batch=8, seq=256, embed=64]      partial over tensor
//                    %3 = reduce_scatter(%2) {dim="seq", axes=["tensor:1:2"]} : f32[batch=8, seq=128, embed=64]
//
// The rules are read once per op over its loop space (every dim name of operands and results), operands are converted to that layout,
// and a dim that the op sums away leaves its result partial. Ops that are linear pass a partial on. A conversion is made once per
// value and layout within a piece. See docs/sharding.md.
#pragma once
#include "ir/plan.h"
#include "mesh/mesh.h"
#include "mesh/rules.h"
#include "passes/op_layout.h"

namespace mw {

// `reduce_dtype`: what FP32 gradients are sent as where they are summed over ranks; the sum is formed in FP32 and rounded once, and what
// accumulates it stays FP32.
Plan partition(Plan plan, const Mesh& mesh, const Rules& rules, DType reduce_dtype = DType::kF32);

}  // namespace mw
