// Cross-entropy over a vocabulary projection, in chunks of tokens: tokens x vocab is never held.
#pragma once
#include "ir/builder.h"

namespace mw {

// nll[tokens..] = logsumexp_v(l_v) - l_target with logits l_v = x . w_v in FP32, 0 where the target is negative.
// x[.., embed], w[vocab, embed], targets i32[..] -> f32[..]. softcap > 0 (Gemma 2): l_v = softcap tanh(x . w_v / softcap).
// Built from the op `cross_entropy`, whose two results are the log-sum-exp and the target's logit (0 for a target outside the
// vocabulary or the shard), each f32[..]; their shards combine by log-sum-exp and by sum, so the vocabulary may be sharded.
// Where the upstream gradient depends on the batch alone, differentiate emits `cross_entropy_with_gradients` (three GEMMs instead
// of four) in its place.
Tensor cross_entropy(Tensor x, Tensor w, Tensor targets, double softcap = 0, Source source = Source::here());

}  // namespace mw
