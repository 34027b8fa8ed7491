#include "layers/attention.h"

#include "ops/attention.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/norm.h"
#include "ops/shape.h"

namespace mw {
namespace {

Tensor project(Tensor x, Tensor weight, const std::optional<Tensor>& bias) {
  const Tensor heads = dot(x, weight, {"embed"});
  return bias ? heads + *bias : heads;
}

Tensor normalise_and_rotate(Tensor heads, const std::optional<Tensor>& norm, const AttentionSettings& settings, const Tokens& tokens) {
  if (norm) heads = rms_norm(heads, *norm, settings.norm_epsilon);
  return rope(heads, tokens.positions, settings.rope);
}

// Adds the rows of these tokens to one cache of the layer; gives the cache with them.
Tensor add_to_cache(const std::string& name, Tensor rows, const Tokens& tokens) {
  const KeyValueCaches& caches = *tokens.caches;
  Builder& b = *rows.builder;
  const Type& type = rows.type();
  const Tensor cache = b.state(name, {type.dtype, {{"slot", caches.num_slots}, {"kv_seq", caches.length}, type.dims[2], type.dims[3]}});
  const Tensor written = cache_write(cache, rows, caches.slots, tokens.positions);
  b.write_state(name, written);
  return written;
}

Tensor attend(Tensor query, Tensor key, Tensor value, const AttentionSettings& settings, const Tokens& tokens, const std::string& layer) {
  const AttentionAttributes attributes{.scale = settings.scale, .causal = true, .window = settings.window};
  if (tokens.caches) {
    const Tensor keys = add_to_cache(kCachePrefix + layer + ".key", key, tokens);
    const Tensor values = add_to_cache(kCachePrefix + layer + ".value", value, tokens);
    return cached_attention(query, keys, values, tokens.caches->slots, tokens.positions, attributes);
  }
  key = rename(key, "seq", "kv_seq");
  value = rename(value, "seq", "kv_seq");
  return attention(query, key, value, tokens.segment_ids, tokens.kv_segment_ids, attributes);
}

}  // namespace

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
    context = attend(query, key, value, settings, tokens, layer);
  }
  const Scope part(b, "out");
  const Tensor out = dot(context, weights.out, {"kv_heads", "q_per_kv", "head_dim"});
  return weights.out_bias ? out + *weights.out_bias : out;
}

}  // namespace mw
