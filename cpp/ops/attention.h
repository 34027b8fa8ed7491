// Scaled dot-product attention that never materialises seq x kv_seq (Dao et al. 2022), and its cached form for decoding.
#pragma once
#include <optional>

#include "ir/builder.h"

namespace mw {

struct AttentionAttributes {
  double scale = 1.0;  // multiplies q . k
  bool causal = true;  // query i sees keys j <= i (same index space: seq and kv_seq have one length)
  int64_t window = 0;  // > 0: also j > i - window

  bool operator==(const AttentionAttributes&) const = default;
  Attributes to_attributes() const;
  static AttentionAttributes from(const Attributes& attributes);
};

// The log-sum-exp of a query that sees no key: finite, so that it can be merged and checked, and far below every other.
inline constexpr double kNothingVisible = -1e30;

// Pairs (query, key) that the attributes let see each other, for one row of the batch and one head.
double visible_pairs(const AttentionAttributes& attributes, int64_t seq, int64_t kv_seq);

// q[batch, seq, kv_heads, q_per_kv, head_dim], k[batch, kv_seq, kv_heads, head_dim], v[batch, kv_seq, kv_heads, value_dim or head_dim],
// segment_ids i32[batch, seq] and kv_segment_ids i32[batch, kv_seq] (both or neither): a query sees only keys of its own segment.
// Result [batch, seq, kv_heads, q_per_kv, value_dim or head_dim]; a query that sees no key gives 0. The op has a second result, the
// log-sum-exp f32[batch, seq, kv_heads, q_per_kv] (kNothingVisible where no key is seen), which the backward pass reads.
Tensor attention(Tensor q, Tensor k, Tensor v, std::optional<Tensor> segment_ids, std::optional<Tensor> kv_segment_ids,
                 const AttentionAttributes& attributes, Source source = Source::here());

// Writes rows x[batch, seq, kv_heads, head_dim] into cache[slot, kv_seq, kv_heads, head_dim] at (slots[batch, seq], positions[batch, seq]);
// a negative slot writes nothing. The result is the cache's new version (in place when it is a state).
Tensor cache_write(Tensor cache, Tensor x, Tensor slots, Tensor positions, Source source = Source::here());

// q[batch, seq, kv_heads, q_per_kv, head_dim], caches [slot, kv_seq, kv_heads, head_dim or value_dim], slots and positions i32[batch, seq]:
// one packed row per replica; the token at [batch, seq] sees cache[slots, j] for j <= positions (and j > positions - window).
// A negative slot is padding and gives 0. Not differentiable.
Tensor cached_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor slots, Tensor positions, const AttentionAttributes& attributes,
                        Source source = Source::here());

}  // namespace mw
