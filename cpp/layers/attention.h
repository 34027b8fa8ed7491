// Multi-head self-attention with grouped keys and values (Ainslie et al. 2023) and rotary positions.
//
//   Tensor y = self_attention(x, {.query = wq, .key = wk, .value = wv, .out = wo}, {.scale = 0.125, .rope = rope}, tokens);
//
// The same code trains and decodes: `tokens` says whether keys and values are those of the sequence or stand in caches.
#pragma once
#include <optional>
#include <string>

#include "ir/builder.h"
#include "ops/rope.h"

namespace mw {

// Keys and values of earlier tokens: each layer owns two states [slot, kv_seq, kv_heads, head_dim], one slot per request.
struct KeyValueCaches {
  Tensor slots;  // i32[batch, seq]: the slot a token belongs to; negative for padding
  int64_t num_slots = 0;
  int64_t length = 0;  // positions per slot
};

// What attention knows of the tokens besides their hidden states.
struct Tokens {
  Tensor positions;  // i32[batch, seq]
  // Within the sequence: a token sees those before it of its own segment ...
  std::optional<Tensor> segment_ids;     // i32[batch, seq]
  std::optional<Tensor> kv_segment_ids;  // the same as i32[batch, kv_seq]
  // ... or through caches: a token sees positions 0 .. its own of its slot.
  std::optional<KeyValueCaches> caches;

  static Tokens in_sequence(Tensor positions, Tensor segment_ids);
  static Tokens through_caches(Tensor positions, KeyValueCaches caches);
};

struct AttentionWeights {
  Tensor query;       // [kv_heads, q_per_kv, head_dim, embed]
  Tensor key, value;  // [kv_heads, head_dim, embed]
  Tensor out;         // [embed, kv_heads, q_per_kv, head_dim]
  std::optional<Tensor> query_bias{}, key_bias{}, value_bias{}, out_bias{};
  std::optional<Tensor> query_norm{}, key_norm{};  // [head_dim]: RMSNorm per head, before the rotation
};

struct AttentionSettings {
  double scale = 1.0;
  int64_t window = 0;  // 0: all earlier tokens
  double norm_epsilon = 1e-6;
  RopeAttributes rope{};
};

// x[batch, seq, embed] -> [batch, seq, embed]. Scopes: attention.query, .key, .value, .context, .out. With caches, the states are
// named after the scope: "cache.layers.3.attention.key".
Tensor self_attention(Tensor x, const AttentionWeights& weights, const AttentionSettings& settings, const Tokens& tokens);

inline constexpr const char* kCachePrefix = "cache.";

}  // namespace mw
