// Latent attention: keys and values formed as in training, or absorbed into the queries over the compressed cache.
#include "layers/mla.h"

#include <cmath>

#include "layers/two_forms.h"
#include "ops/ops.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kHeads = 3, kNope = 4, kRope = 2, kValue = 5, kLatent = 7, kQueryLatent = 8;

TwoForms layer_of(bool query_latent) {
  TwoForms layer;
  layer.build = [query_latent, embed = layer.embed](Tensor x, const Tokens& tokens) {
    Builder& b = *x.builder;
    const Dim heads{"kv_heads", kHeads}, head{"head_dim", kNope + kRope}, e{"embed", embed}, latent{"kv_lora", kLatent};
    const auto weight = [&](const char* name, std::vector<Dim> dims) { return b.parameter(name, {DType::kF32, std::move(dims)}); };
    MlaWeights w{.kv_a = weight("kv_a", {{"kv_lora_rope", kLatent + kRope}, e}),
                 .kv_a_norm = weight("kv_a_norm", {latent}),
                 .kv_b = weight("kv_b", {heads, {"nope_value", kNope + kValue}, latent}),
                 .out = weight("out", {e, heads, {"value_dim", kValue}})};
    if (query_latent) {
      w.query_a = weight("query_a", {{"q_lora", kQueryLatent}, e});
      w.query_a_norm = weight("query_a_norm", {{"q_lora", kQueryLatent}});
      w.query_b = weight("query_b", {heads, head, {"q_lora", kQueryLatent}});
    } else {
      w.query = weight("query", {heads, head, e});
    }
    return latent_attention(x, w, {.scale = 0.4, .rope = {.theta = 100, .pairing = "interleaved"}}, tokens);
  };
  return layer;
}

}  // namespace

TEST(layers, latent_attention_is_the_same_through_its_compressed_cache) {
  for (const bool query_latent : {false, true}) {
    const auto caches = expect_same_in_both_forms("latent attention", layer_of(query_latent));
    EXPECT_EQ(caches.size(), size_t{1});
    EXPECT_EQ(to_string(caches.at("cache.attention.latent")), "f32[slot=3, kv_seq=12, kv_heads=1, head_dim=9]");
  }
}

// One token sees itself alone: its output is its own value, kv_b's last rows of the normalised latent, through `out`.
TEST(layers, latent_attention_of_one_token_is_its_value) {
  TwoForms layer = layer_of(false);
  layer.seq = 1;
  TwoForms value = layer;
  value.build = [embed = layer.embed](Tensor x, const Tokens&) {
    Builder& b = *x.builder;
    const auto weight = [&](const char* name, std::vector<Dim> dims) { return b.parameter(name, {DType::kF32, std::move(dims)}); };
    const Dim heads{"kv_heads", kHeads}, e{"embed", embed}, latent{"kv_lora", kLatent};
    const Tensor both = dot(x, weight("kv_a", {{"kv_lora_rope", kLatent + kRope}, e}), {"embed"});
    const Tensor normed =
        rms_norm(rename(slice(both, "kv_lora_rope", 0, kLatent), "kv_lora_rope", "kv_lora"), weight("kv_a_norm", {latent}), 1e-6);
    const Tensor heads_of = dot(normed, weight("kv_b", {heads, {"nope_value", kNope + kValue}, latent}), {"kv_lora"});
    return dot(rename(slice(heads_of, "nope_value", kNope, kValue), "nope_value", "value_dim"),
               weight("out", {e, heads, {"value_dim", kValue}}), {"kv_heads", "value_dim"});
  };
  EXPECT(relative_difference(run_in_sequence(layer), run_in_sequence(value)) < 1e-12);
}

}  // namespace mw::testing
