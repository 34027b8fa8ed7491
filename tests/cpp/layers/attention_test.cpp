// Everything that a family may ask of attention gives the same through caches as within the sequence.
#include "layers/attention.h"

#include <cmath>

#include "layers/two_forms.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kKeyHeads = 2, kQueries = 2, kHeadDim = 4;

struct Parts {
  bool norms = false, sinks = false;
};

TwoForms layer_of(const AttentionSettings& settings, Parts parts = {}) {
  TwoForms layer;
  layer.build = [=, embed = layer.embed](Tensor x, const Tokens& tokens) {
    Builder& b = *x.builder;
    const Dim heads{"kv_heads", kKeyHeads}, queries{"q_per_kv", kQueries}, head{"head_dim", kHeadDim}, e{"embed", embed};
    const auto weight = [&](const char* name, std::vector<Dim> dims) { return b.parameter(name, {DType::kF32, std::move(dims)}); };
    AttentionWeights w{.query = weight("query", {heads, queries, head, e}),
                       .key = weight("key", {heads, head, e}),
                       .value = weight("value", {heads, head, e}),
                       .out = weight("out", {e, heads, queries, head})};
    if (parts.norms) w.query_norm = weight("query_norm", {head}), w.key_norm = weight("key_norm", {head});
    if (parts.sinks) w.sinks = weight("sinks", {heads, queries});
    return self_attention(x, w, settings, tokens);
  };
  return layer;
}

void expect_equal(const HostArray& a, const HostArray& b) { EXPECT(relative_difference(a, b) < 1e-12); }

}  // namespace

TEST(layers, attention_is_the_same_through_caches_and_in_the_sequence) {
  const RopeAttributes rope{.theta = 100};
  const auto check = [](const char* what, const AttentionSettings& settings, Parts parts = {}) {
    expect_same_in_both_forms(what, layer_of(settings, parts));
  };
  check("plain", {.scale = 0.5, .rope = rope});
  check("without positions", {.scale = 0.5});
  check("gemma 2", {.scale = 0.5, .window = 4, .softcap = 2, .rope = rope});
  check("gemma 3", {.scale = 0.5, .window = 3, .norm_offset_one = true, .rope = rope}, {.norms = true});
  check("gpt-oss", {.scale = 0.5, .window = 4, .rope = rope}, {.sinks = true});
  check("llama 4, rope", {.scale = 0.5, .chunk = 5, .rope = rope, .l2_norm_epsilon = 1e-5});
  check("llama 4, nope", {.scale = 0.5, .temperature = TemperatureTuning{.floor_scale = 3, .attn_scale = 0.2}});
}

TEST(layers, caches_of_windows_and_chunks_are_rings) {
  for (const AttentionSettings& settings :
       {AttentionSettings{.scale = 0.5, .window = 20, .rope = RopeAttributes{}}, AttentionSettings{.scale = 0.5, .chunk = 50}}) {
    TwoForms layer = layer_of(settings);
    layer.seq = 300, layer.step = 40, layer.cache_length = 512;
    const auto caches = expect_same_in_both_forms("ring", layer);
    EXPECT_EQ(caches.size(), size_t{2});
    for (const auto& [name, type] : caches) EXPECT_EQ(type.size_of("kv_seq"), 128);
  }
  const KeyValueCaches caches{.slots = {}, .num_slots = 1, .length = 1024, .step_tokens = 256};
  EXPECT_EQ(cache_rows(caches, 0).count, 1024);
  EXPECT_EQ(cache_rows(caches, 500).count, 768);
  EXPECT(cache_rows(caches, 500).ring);
  EXPECT_EQ(cache_rows(caches, 800).count, 1024);
  EXPECT(!cache_rows(caches, 800).ring);
}

// Where all positions have one floor, temperature is a larger scale; 1 + w is a weight; unit norms of constant size are a scale.
TEST(layers, attention_settings_are_their_formulas) {
  const double factor = 1 + 0.1 * std::log(1 + 2);
  TwoForms sharp = layer_of({.scale = 0.5, .temperature = TemperatureTuning{.floor_scale = 16, .attn_scale = 0.1}});
  expect_equal(run_in_sequence(sharp, 31), run_in_sequence(layer_of({.scale = 0.5 * factor}), 31));
  // A chunk that holds the whole sequence is none, and chunks of one leave a token alone with its value.
  expect_equal(run_in_sequence(layer_of({.scale = 0.5, .chunk = 12})), run_in_sequence(layer_of({.scale = 0.5})));
  expect_equal(run_in_sequence(layer_of({.scale = 0.5, .chunk = 1})), run_in_sequence(layer_of({.scale = 0.5, .window = 1})));
  // The weightless norm does not see the size of its operand, and comes behind the rotation, which keeps that size.
  const AttentionSettings unit{.scale = 0.5, .rope = RopeAttributes{}, .l2_norm_epsilon = 0.0};
  expect_equal(run_in_sequence(layer_of(unit)),
               run_in_sequence(layer_of({.scale = 0.5, .rope = RopeAttributes{.attention_factor = 3}, .l2_norm_epsilon = 0.0})));
}

}  // namespace mw::testing
