// The pieces that attention in its two forms decomposes into: masked scores, and what follows from them. They do hold
// seq x kv_seq: this is the oracle and the fallback of the fused kernels.
#pragma once
#include <optional>
#include <vector>

#include "ir/builder.h"
#include "ops/attention.h"

namespace mw {

struct MaskedScores {
  Tensor scores;   // f32[batch, seq, kv_heads, q_per_kv, kv_seq], kNothingVisible where a key is not seen
  Tensor visible;  // u8, dims among those of the scores
};

// scale q . k, capped.
Tensor attention_scores(Tensor q, Tensor k, const AttentionAttributes& attributes);
// `segments`: none, or segment_ids[batch, seq] and kv_segment_ids[batch, kv_seq]. `starts`, `key_starts`: as those of attention, i32[]
// each.
MaskedScores masked_scores(Tensor q, Tensor k, const std::vector<Tensor>& segments, const std::vector<Tensor>& starts,
                           const std::vector<Tensor>& key_starts, const AttentionAttributes& attributes);
MaskedScores masked_by(Tensor scores, Tensor visible);

// What both passes know of the softmax besides scores and values.
struct SoftmaxTerms {
  MaskedScores masked;
  std::optional<Tensor> sinks;  // [kv_heads, q_per_kv]
};

// Output in `dtype`, and the log-sum-exp.
std::vector<Tensor> attend(const SoftmaxTerms& terms, DType dtype, Tensor v);

struct AttentionOutputs {
  Tensor out, lse, dout;
  std::optional<Tensor> dlse;
};
// dq, dk, dv and, with sinks, dsinks in `sinks_dtype`.
std::vector<Tensor> attend_gradient(const SoftmaxTerms& terms, const AttentionAttributes& attributes, Tensor q, Tensor k, Tensor v,
                                    const AttentionOutputs& outputs, DType sinks_dtype);

}  // namespace mw
