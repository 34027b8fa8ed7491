#include "layers/mla.h"

#include "base/error.h"
#include "ops/attention.h"
#include "ops/dot.h"
#include "ops/norm.h"
#include "ops/shape.h"

namespace mw {
namespace {

// Rows of a head: `nope` without a position and `rope` with one, `value`; the latent has `latent` elements.
struct HeadSizes {
  int64_t nope, rope, value, latent;

  explicit HeadSizes(const MlaWeights& w) {
    const Tensor query = w.query ? *w.query : *w.query_b;
    value = w.out.size("value_dim"), latent = w.kv_b.size("kv_lora");
    nope = w.kv_b.size("nope_value") - value, rope = query.size("head_dim") - nope;
  }
};

// Elements [start, start + size) of the dim `from`, under the name `to`.
Tensor part(Tensor x, const std::string& from, int64_t start, int64_t size, const std::string& to) {
  const Tensor piece = slice(x, from, start, size);
  return from == to ? piece : rename(piece, from, to);
}

// The two halves of a query or key of every head, [batch, seq, kv_heads, head_dim].
struct Halves {
  Tensor nope, rope;
};

Halves query_halves(Tensor x, const MlaWeights& w, const MlaSettings& settings, const HeadSizes& sizes, const Tokens& tokens) {
  Tensor query;
  if (w.query) {
    query = dot(x, *w.query, {"embed"});
  } else {
    Tensor low_rank;
    {
      const Scope scope(*x.builder, "low_rank");
      low_rank = dot(x, *w.query_a, {"embed"});
    }
    query = dot(rms_norm(low_rank, *w.query_a_norm, settings.norm_epsilon), *w.query_b, {"q_lora"});
  }
  return {part(query, "head_dim", 0, sizes.nope, "head_dim"),
          rope(part(query, "head_dim", sizes.nope, sizes.rope, "head_dim"), tokens.positions, settings.rope)};
}

// What a cache keeps of a token.
struct Compressed {
  Tensor latent;    // [batch, seq, kv_lora]
  Tensor rope_key;  // [batch, seq, rope_dim]
};

Compressed compress(Tensor x, const MlaWeights& w, const MlaSettings& settings, const HeadSizes& sizes, const Tokens& tokens) {
  const Tensor both = dot(x, w.kv_a, {"embed"});
  return {rms_norm(part(both, "kv_lora_rope", 0, sizes.latent, "kv_lora"), w.kv_a_norm, settings.norm_epsilon),
          rope(part(both, "kv_lora_rope", sizes.latent, sizes.rope, "rope_dim"), tokens.positions, settings.rope)};
}

// Every head is a key head of its own: q_per_kv = 1.
Tensor attend_in_sequence(const Halves& query, const Compressed& token, const MlaWeights& w, const MlaSettings& settings,
                          const HeadSizes& sizes, const Tokens& tokens) {
  Builder& b = *query.nope.builder;
  Tensor both, key, value;
  {
    const Scope scope(b, "key");
    both = dot(token.latent, w.kv_b, {"kv_lora"});
    const Tensor nope = part(both, "nope_value", 0, sizes.nope, "head_dim");
    Type every_head = nope.type();
    every_head.dims.back().size = sizes.rope;
    key = concat({nope, broadcast_to(rename(token.rope_key, "rope_dim", "head_dim"), every_head)}, "head_dim");
  }
  {
    const Scope scope(b, "value");
    value = part(both, "nope_value", sizes.nope, sizes.value, "value_dim");
  }
  const Scope scope(b, "context");
  const Tensor joined = concat({query.nope, query.rope}, "head_dim");
  const Tensor context =
      attention(split(joined, "kv_heads", {{"kv_heads", joined.size("kv_heads")}, {"q_per_kv", 1}}), rename(key, "seq", "kv_seq"),
                rename(value, "seq", "kv_seq"), tokens.segment_ids, tokens.kv_segment_ids, {.scale = settings.scale});
  return merge(context, {"kv_heads", "q_per_kv"}, "kv_heads");
}

// kv_heads = 1 behind seq: split off there, so that the shards of the heads stay where they are.
Tensor with_one_key_head(Tensor x) { return split(x, "seq", {{"seq", x.size("seq")}, {"kv_heads", 1}}); }

// All heads are queries of one key head, whose keys are the compressed tokens and whose values are the latents in them. kv_b is used whole
// on either side: a step of few tokens would spend more on copying its halves than on the products with zeros.
Tensor attend_through_cache(const Halves& query, const Compressed& token, const MlaWeights& w, const MlaSettings& settings,
                            const HeadSizes& sizes, const Tokens& tokens, const std::string& layer) {
  Builder& b = *query.nope.builder;
  Tensor key, joined;
  {
    const Scope scope(b, "key");
    const Tensor padded = pad(rename(query.nope, "head_dim", "nope_value"), "nope_value", 0, sizes.value);
    const Tensor absorbed = rename(dot(padded, w.kv_b, {"nope_value"}), "kv_lora", "head_dim");
    joined = rename(concat({absorbed, query.rope}, "head_dim"), "kv_heads", "q_per_kv");
    key = concat({rename(token.latent, "kv_lora", "head_dim"), rename(token.rope_key, "rope_dim", "head_dim")}, "head_dim");
  }
  Tensor latents;
  {
    const Scope scope(b, "context");
    const Tensor rows = with_one_key_head(key);
    const Tensor cache = add_to_cache(kCachePrefix + layer + ".latent", rows, tokens, cache_rows(*tokens.caches, 0));
    const Tensor context = cached_attention(with_one_key_head(joined), cache, std::nullopt, tokens.caches->slots, tokens.positions,
                                            {.scale = settings.scale, .value_prefix = sizes.latent});
    latents = rename(merge(context, {"kv_heads", "q_per_kv"}, "kv_heads"), "value_dim", "kv_lora");
  }
  const Scope scope(b, "value");
  return part(dot(latents, w.kv_b, {"kv_lora"}), "nope_value", sizes.nope, sizes.value, "value_dim");
}

}  // namespace

Tensor latent_attention(Tensor x, const MlaWeights& weights, const MlaSettings& settings, const Tokens& tokens) {
  MW_CHECK(weights.query || (weights.query_a && weights.query_a_norm && weights.query_b), "latent attention without a query projection");
  Builder& b = *x.builder;
  const Scope scope(b, "attention");
  const std::string layer = b.scope();
  const HeadSizes sizes(weights);
  Halves query;
  Compressed token;
  {
    const Scope step(b, "query");
    query = query_halves(x, weights, settings, sizes, tokens);
  }
  {
    const Scope step(b, "latent");
    token = compress(x, weights, settings, sizes, tokens);
  }
  const Tensor values = tokens.caches ? attend_through_cache(query, token, weights, settings, sizes, tokens, layer)
                                      : attend_in_sequence(query, token, weights, settings, sizes, tokens);
  const Scope step(b, "out");
  return dot(values, weights.out, {"kv_heads", "value_dim"});
}

}  // namespace mw
