// Attention as a ring over the ranks among which a sequence is sharded in zigzag order (Liu et al. 2023): each rank keeps its queries; keys
// and values go around, and after n steps every query has met every key. No rank ever holds all of them.
//
//   %3, %4 = attention(%q, %k, %v)    ->    %3, %4 = attention(%q, %k, %v, STARTS..)     %5 = ring_shift(%k)  %6 = ring_shift(%v)
//                                           %7, %8 = attention(%q, %5, %6, STARTS..)     and %3, %7 merged by %4 and %8, the log-sum-exps
#pragma once
#include <vector>

#include "ir/builder.h"
#include "ir/layout.h"

namespace mw {

bool is_attention(const Op& op);  // attention or attention_gradient

// Results of an attention op, or of its gradient, for this rank's shard of queries and keys over `part`. Operands are those of the op,
// local, without starts. The gradients of keys and values, in FP32, go around with them and end where they belong.
std::vector<Tensor> ring_attention(Builder& builder, const Op& op, const std::vector<Tensor>& operands, const AxisPart& part);

}  // namespace mw
