// Multi-head latent attention (DeepSeek-AI 2024, "DeepSeek-V2"): keys and values of all heads are projections of one short latent per
// token; a rotated key that the heads share carries the positions.
//
//   Tensor y = latent_attention(x, {.query_a = wqa, .query_a_norm = nqa, .query_b = wqb, .kv_a = wkva, ...}, {.scale = 0.07}, tokens);
//
// In training keys and values are formed. Through caches, the latent and the rotated key are all that is kept of a token: the keys'
// projection is applied to the queries instead, the values' to the sum over latents.
#pragma once
#include <optional>

#include "layers/attention.h"

namespace mw {

struct MlaWeights {
  // The query: through a latent of its own (query_a, query_a_norm, query_b) or at once (query). head_dim: the rows without a position, then
  // those that are rotated.
  std::optional<Tensor> query{};         // [kv_heads, head_dim, embed]
  std::optional<Tensor> query_a{};       // [q_lora, embed]
  std::optional<Tensor> query_a_norm{};  // [q_lora]
  std::optional<Tensor> query_b{};       // [kv_heads, head_dim, q_lora]
  Tensor kv_a;                           // [kv_lora_rope, embed]: the latent's rows, then those of the rotated key
  Tensor kv_a_norm;                      // [kv_lora]
  Tensor kv_b;                           // [kv_heads, nope_value, kv_lora]: the key's rows without a position, then the value's
  Tensor out;                            // [embed, kv_heads, value_dim]
};

struct MlaSettings {
  double scale = 1.0;  // of scores, with everything that a long context adds to it
  double norm_epsilon = 1e-6;
  RopeAttributes rope{.pairing = "interleaved"};
};

// x[batch, seq, embed] -> [batch, seq, embed]. Scopes: attention.query, .latent, .key, .value, .context, .out. With caches, the one state
// is "cache.layers.3.attention.latent" [slot, kv_seq, kv_heads=1, head_dim = kv_lora + rotated].
Tensor latent_attention(Tensor x, const MlaWeights& weights, const MlaSettings& settings, const Tokens& tokens);

}  // namespace mw
