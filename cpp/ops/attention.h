// Scaled dot-product attention that never materialises seq x kv_seq (Dao et al. 2022), its cached form for decoding, and the segment ids
// that make it chunked.
#pragma once
#include <optional>

#include "ir/builder.h"

namespace mw {

struct AttentionAttributes {
  double scale = 1.0;  // multiplies q . k
  bool causal = true;  // query i sees keys j <= i (same index space: seq and kv_seq have one length)
  int64_t window = 0;  // > 0: also j > i - window
  double softcap = 0;  // > 0: a score s becomes softcap tanh(s / softcap), before the mask (Gemma 2)
  bool sinks = false;  // the last operand holds one more logit per query head, without a value (GPT-OSS)
  int64_t chunk = 0;   // > 0: the token at position p sees positions p - p % chunk .. p (Llama 4). `attention` only counts FLOPs by it:
                       // there chunks are segments, by chunk_segments
  // Of cached_attention alone:
  bool ring = false;         // position p stands in row p % kv_seq of its slot
  int64_t value_prefix = 0;  // > 0: no value cache; values are the first value_prefix elements of each key (the latent of MLA)

  bool operator==(const AttentionAttributes&) const = default;
  Attributes to_attributes() const;
  static AttentionAttributes from(const Attributes& attributes);
  void check() const;  // UserError for a number out of range
  double capped(double score) const;
};

// The log-sum-exp of a query that sees no key: finite, so that it can be merged and checked, and far below every other.
inline constexpr double kNothingVisible = -1e30;

// A ring is a whole number of these blocks, in which the kernels take keys: so a block never wraps, and a token's bits are those of a
// cache without end.
inline constexpr int64_t kRingBlock = 128;

// Where the optional operands of `attention` and `attention_gradient` stand; 0: absent.
struct OptionalOperands {
  size_t segments = 0;  // and kv_segments behind it
  size_t sinks = 0;
  size_t lse_gradient = 0;  // of attention_gradient
  size_t starts = 0;        // first global index of the queries; two for a shard in zigzag order, of either half
  size_t num_starts = 0;
  size_t key_starts = 0;  // behind them, of the keys, where those are a shard too
  size_t num_key_starts = 0;
};
// `first`: the operands that are always there, 3 of attention and 6 of its gradient. UserError when `count` does not fit.
OptionalOperands optional_operands(const Attributes& attributes, size_t first, size_t count);
void check_sinks(const Type& sinks, const Type& q);

// The global index of element i of a shard of `size` that starts at `starts` (none: it is whole).
int64_t index_in_whole(const std::vector<int64_t>& starts, int64_t size, int64_t i);
// `ring_parts`: of how many shards the keys are one, as attention says to its cost.
inline constexpr const char* kRingParts = "ring_parts";

// Pairs (query, key) that the attributes let see each other, for one row of the batch and one head.
double visible_pairs(const AttentionAttributes& attributes, int64_t seq, int64_t kv_seq);

// q[batch, seq, kv_heads, q_per_kv, head_dim], k[batch, kv_seq, kv_heads, head_dim], v[batch, kv_seq, kv_heads, value_dim or head_dim],
// segment_ids i32[batch, seq] and kv_segment_ids i32[batch, kv_seq] (both or neither): a query sees only keys of its own segment;
// sinks[kv_heads, q_per_kv] of any float dtype: exp(sinks) is one more term of the softmax's sum.
// A shard of the queries is told the index of its first query, or those of its two halves, in trailing i32[] operands (`offsets` names
// "seq" for each); a shard of the keys likewise behind them ("kv_seq").
// Result [batch, seq, kv_heads, q_per_kv, value_dim or head_dim]; a query that sees no key gives 0. The op has a second result, the
// log-sum-exp f32[batch, seq, kv_heads, q_per_kv] with the sink (kNothingVisible where there is no term), which the backward pass reads.
Tensor attention(Tensor q, Tensor k, Tensor v, std::optional<Tensor> segment_ids, std::optional<Tensor> kv_segment_ids,
                 AttentionAttributes attributes, std::optional<Tensor> sinks = std::nullopt, Source source = Source::here());

// Segment ids i32[batch, seq] for chunked attention: of each token the index, within its row, of the first token with the same
// (segment id, position / chunk). Positions start again with each segment, so chunks do.
Tensor chunk_segments(Tensor segment_ids, Tensor positions, int64_t chunk, Source source = Source::here());

// The chunk of a position: rounded down, also below 0.
constexpr int64_t chunk_of(int64_t position, int64_t chunk) { return (position < 0 ? position - chunk + 1 : position) / chunk; }

// Writes rows x[batch, seq, kv_heads, head_dim] into cache[slot, kv_seq, kv_heads, head_dim] at (slots[batch, seq], positions[batch, seq]);
// a negative slot writes nothing. The result is the cache's new version (in place when it is a state). ring: row positions % kv_seq.
Tensor cache_write(Tensor cache, Tensor x, Tensor slots, Tensor positions, bool ring = false, Source source = Source::here());

// q[batch, seq, kv_heads, q_per_kv, head_dim], caches [slot, kv_seq, kv_heads, head_dim or value_dim], slots and positions i32[batch, seq]:
// one packed row per replica; the token at [batch, seq] sees the positions up to its own of its slot, within window or chunk.
// A negative slot is padding and gives 0. Not differentiable. v_cache: absent with value_prefix, and the result then has that value_dim.
// A ring has a multiple of kRingBlock rows and holds the window or chunk and the tokens of one step: batch x seq.
Tensor cached_attention(Tensor q, Tensor k_cache, std::optional<Tensor> v_cache, Tensor slots, Tensor positions,
                        AttentionAttributes attributes, std::optional<Tensor> sinks = std::nullopt, Source source = Source::here());

}  // namespace mw
