#include "layers/attention.h"

#include <algorithm>

#include "base/error.h"
#include "ops/attention.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/norm.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

Tensor project(Tensor x, Tensor weight, const std::optional<Tensor>& bias) {
  const Tensor heads = dot(x, weight, {"embed"});
  return bias ? heads + *bias : heads;
}

Tensor unweighted_rms_norm(Tensor heads, double epsilon) {
  const Tensor wide = cast(heads, DType::kF32);
  return cast(wide * rsqrt(reduce_mean(square(wide), {"head_dim"}) + epsilon), heads.dtype());
}

Tensor normalise_and_rotate(Tensor heads, const std::optional<Tensor>& norm, const AttentionSettings& settings, const Tokens& tokens) {
  if (norm) heads = rms_norm(heads, *norm, settings.norm_epsilon, settings.norm_offset_one);
  if (settings.rope) heads = rope(heads, tokens.positions, *settings.rope);
  if (settings.l2_norm_epsilon) heads = unweighted_rms_norm(heads, *settings.l2_norm_epsilon);
  return heads;
}

Tensor sharpened(Tensor query, const TemperatureTuning& temperature, const Tokens& tokens) {
  const Tensor turns = (cast(tokens.positions, DType::kF32) + 1.0) / constant(*query.builder, temperature.floor_scale);
  const Tensor factor = log(unary("floor", turns) + 1.0) * temperature.attn_scale + 1.0;
  return cast(cast(query, DType::kF32) * factor, query.dtype());
}

Tensor attend(Tensor query, Tensor key, Tensor value, const std::optional<Tensor>& sinks, const AttentionSettings& settings,
              const Tokens& tokens, const std::string& layer) {
  AttentionAttributes attributes{
      .scale = settings.scale, .causal = true, .window = settings.window, .softcap = settings.softcap, .chunk = settings.chunk};
  if (tokens.caches) {
    const CacheRows rows = cache_rows(*tokens.caches, std::max(settings.window, settings.chunk));
    const Tensor keys = add_to_cache(kCachePrefix + layer + ".key", key, tokens, rows);
    const Tensor values = add_to_cache(kCachePrefix + layer + ".value", value, tokens, rows);
    attributes.ring = rows.ring;
    return cached_attention(query, keys, values, tokens.caches->slots, tokens.positions, attributes, sinks);
  }
  key = rename(key, "seq", "kv_seq");
  value = rename(value, "seq", "kv_seq");
  if (settings.chunk == 0) return attention(query, key, value, tokens.segment_ids, tokens.kv_segment_ids, attributes, sinks);
  const Tensor chunks = chunk_segments(*tokens.segment_ids, tokens.positions, settings.chunk);
  return attention(query, key, value, chunks, rename(chunks, "seq", "kv_seq"), attributes, sinks);
}

}  // namespace

CacheRows cache_rows(const KeyValueCaches& caches, int64_t reach) {
  if (reach == 0) return {caches.length, false};
  MW_CHECK(caches.step_tokens > 0, "caches of windowed layers need step_tokens");
  const int64_t ring = (reach + caches.step_tokens + kRingBlock - 1) / kRingBlock * kRingBlock;
  return ring < caches.length ? CacheRows{ring, true} : CacheRows{caches.length, false};
}

Tensor add_to_cache(const std::string& name, Tensor rows, const Tokens& tokens, CacheRows size) {
  const KeyValueCaches& caches = *tokens.caches;
  Builder& b = *rows.builder;
  const Type& type = rows.type();
  const Tensor cache = b.state(name, {type.dtype, {{"slot", caches.num_slots}, {"kv_seq", size.count}, type.dims[2], type.dims[3]}});
  const Tensor written = cache_write(cache, rows, caches.slots, tokens.positions, size.ring);
  b.write_state(name, written);
  return written;
}

Tokens Tokens::in_sequence(Tensor positions, Tensor segment_ids) {
  return {.positions = positions, .segment_ids = segment_ids, .kv_segment_ids = rename(segment_ids, "seq", "kv_seq"), .caches = {}};
}

Tokens Tokens::through_caches(Tensor positions, KeyValueCaches caches) {
  return {.positions = positions, .segment_ids = {}, .kv_segment_ids = {}, .caches = caches};
}

Tensor self_attention(Tensor x, const AttentionWeights& weights, const AttentionSettings& settings, const Tokens& tokens) {
  Builder& b = *x.builder;
  const Scope scope(b, "attention");
  const std::string layer = b.scope();
  Tensor query, key, value, context;
  {
    const Scope part(b, "query");
    query = normalise_and_rotate(project(x, weights.query, weights.query_bias), weights.query_norm, settings, tokens);
    if (settings.temperature) query = sharpened(query, *settings.temperature, tokens);
  }
  {
    const Scope part(b, "key");
    key = normalise_and_rotate(project(x, weights.key, weights.key_bias), weights.key_norm, settings, tokens);
  }
  {
    const Scope part(b, "value");
    value = project(x, weights.value, weights.value_bias);
  }
  {
    const Scope part(b, "context");
    context = attend(query, key, value, weights.sinks, settings, tokens, layer);
  }
  const Scope part(b, "out");
  const Tensor out = dot(context, weights.out, {"kv_heads", "q_per_kv", "head_dim"});
  return weights.out_bias ? out + *weights.out_bias : out;
}

Tensor self_attention(Tensor x, const FusedAttentionWeights& weights, const AttentionSettings& settings, const Tokens& tokens) {
  Builder& b = *x.builder;
  const Scope scope(b, "attention");
  const std::string layer = b.scope();
  Tensor query, key, value, context;
  {
    const Scope part(b, "qkv");
    const Tensor all = dot(x, weights.qkv, {"embed"}) + weights.qkv_bias;
    const auto one = [&](int64_t i) { return merge(slice(all, "qkv", i, 1), {"qkv", "kv_heads"}, "kv_heads"); };
    query = one(0), key = one(1), value = one(2);
    query = split(query, "kv_heads", {{"kv_heads", query.size("kv_heads")}, {"q_per_kv", 1}});
  }
  {
    const Scope part(b, "context");
    context = attend(query, key, value, {}, settings, tokens, layer);
  }
  const Scope part(b, "out");
  return dot(merge(context, {"kv_heads", "q_per_kv"}, "kv_heads"), weights.out, {"kv_heads", "head_dim"}) + weights.out_bias;
}

}  // namespace mw
