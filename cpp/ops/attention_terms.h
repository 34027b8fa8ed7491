// The pieces that attention in its two forms decomposes into: masked scores, and what follows from them. They do hold
// seq x kv_seq: this is the oracle and the fallback of the fused kernels.
#pragma once
#include <vector>

#include "ir/builder.h"
#include "ops/attention.h"

namespace mw {

struct MaskedScores {
  Tensor scores;   // f32[batch, seq, kv_heads, q_per_kv, kv_seq], kNothingVisible where a key is not seen
  Tensor visible;  // u8, dims among those of the scores
};

// `segments`: none, or segment_ids[batch, seq] and kv_segment_ids[batch, kv_seq].
MaskedScores masked_scores(Tensor q, Tensor k, const std::vector<Tensor>& segments, const AttentionAttributes& attributes);
MaskedScores masked_by(Tensor scores, Tensor visible);

// Output in `dtype`, and the log-sum-exp.
std::vector<Tensor> attend(const MaskedScores& masked, DType dtype, Tensor v);
// dq, dk, dv
std::vector<Tensor> attend_gradient(const MaskedScores& masked, double scale, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,
                                    Tensor dout);

}  // namespace mw
