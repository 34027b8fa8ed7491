// Products of rows with the weight of their expert; how many rows an expert has is known only when the product runs.
//
//   grouped_dot(x, w, experts_of_rows, {"embed"})    x[expert_rows, embed], w[experts, expert_mlp, embed]  ->  [expert_rows, expert_mlp]
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

// y[r, N..] = sum over `contract` of x[r, contract..] w[row_experts[r], ..], with N.. the other dims of w in its order. row_experts
// i32[expert_rows] is ascending. x has no dims but expert_rows and those contracted; sums are formed in FP32 (or better).
Tensor grouped_dot(Tensor x, Tensor w, Tensor row_experts, std::vector<std::string> contract, Source source = Source::here());

// The gradient of w: type[experts, ..][e] = sum over the rows r of expert e of x[r, ..] dy[r, ..].
Tensor grouped_dot_weights(Tensor x, Tensor dy, Tensor row_experts, const Type& type, Source source = Source::here());

}  // namespace mw
