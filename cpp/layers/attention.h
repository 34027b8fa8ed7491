// Multi-head self-attention with grouped keys and values (Ainslie et al. 2023) and rotary positions, in the forms of all families.
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

// Keys and values of earlier tokens: each layer owns states [slot, kv_seq, kv_heads, head_dim], one slot per request. A layer that sees a
// window or a chunk keeps no more than that in a ring, where it is shorter than `length`.
struct KeyValueCaches {
  Tensor slots;  // i32[batch, seq]: the slot a token belongs to; negative for padding
  int64_t num_slots = 0;
  int64_t length = 0;       // positions per slot
  int64_t step_tokens = 0;  // the most tokens that any Program over these caches feeds in one step: rings hold them too
};

// The rows per slot of the cache of a layer whose tokens see `reach` positions (0: all earlier ones), and whether they are a ring.
struct CacheRows {
  int64_t count;
  bool ring;
};
CacheRows cache_rows(const KeyValueCaches& caches, int64_t reach);

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
  std::optional<Tensor> sinks{};                   // [kv_heads, q_per_kv]: a logit of its own per query head (GPT-OSS)
};

// Queries of late positions are sharpened: q (1 + attn_scale ln(1 + floor((position + 1) / floor_scale))) (Nakanishi 2025; Llama 4).
struct TemperatureTuning {
  double floor_scale = 8192;
  double attn_scale = 0.1;
};

struct AttentionSettings {
  double scale = 1.0;
  int64_t window = 0;  // 0: all earlier tokens
  int64_t chunk = 0;   // > 0: a token sees its own chunk of positions only (Llama 4); not with a window
  double softcap = 0;  // > 0: scores are capped (Gemma 2)
  double norm_epsilon = 1e-6;
  bool norm_offset_one = false;                    // query_norm and key_norm multiply by 1 + w (Gemma 3)
  std::optional<RopeAttributes> rope{};            // none: no positions (NoPE)
  std::optional<double> l2_norm_epsilon{};         // RMSNorm of query and key without a weight, after the rotation (Llama 4 Scout)
  std::optional<TemperatureTuning> temperature{};  // of the NoPE layers of Llama 4
};

// x[batch, seq, embed] -> [batch, seq, embed]. Scopes: attention.query, .key, .value, .context, .out. With caches, the states are
// named after the scope: "cache.layers.3.attention.key".
Tensor self_attention(Tensor x, const AttentionWeights& weights, const AttentionSettings& settings, const Tokens& tokens);

// Query, key and value in one matrix, every query head with keys of its own (GPT-2).
struct FusedAttentionWeights {
  Tensor qkv;       // [embed, qkv=3, kv_heads, head_dim]
  Tensor qkv_bias;  // [qkv=3, kv_heads, head_dim]
  Tensor out;       // [kv_heads, head_dim, embed]
  Tensor out_bias;  // [embed]
};

// The same, without rotation or norms. Scopes: attention.qkv, .context, .out.
Tensor self_attention(Tensor x, const FusedAttentionWeights& weights, const AttentionSettings& settings, const Tokens& tokens);

inline constexpr const char* kCachePrefix = "cache.";

// Writes the rows [batch, seq, kv_heads, head_dim] of these tokens to the state `name`; gives the cache with them.
Tensor add_to_cache(const std::string& name, Tensor rows, const Tokens& tokens, CacheRows size);

}  // namespace mw
