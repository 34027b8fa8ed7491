#include "ops/attention.h"

#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes masked(bool causal, int64_t window, double scale = 0.5) { return AttentionAttributes{.scale = scale, .causal = causal, .window = window}.to_attributes(); }

Attributes with(AttentionAttributes attributes) { return attributes.to_attributes(); }

// For the gradient op, which also says in which dtype it gives the sinks' gradient.
Attributes gradient_with(AttentionAttributes attributes, bool lse_gradient) {
  Attributes all = attributes.to_attributes();
  if (attributes.sinks) all.set("sinks_dtype", "f32");
  if (lse_gradient) all.set("lse_gradient", true);
  return all;
}

Attributes starting(Attributes attributes, int halves) {
  attributes.set("offsets", std::vector<std::string>(static_cast<size_t>(halves), "seq"));
  return attributes;
}

// One step of a ring: queries and keys of two ranks, each in two halves.
Attributes meeting(Attributes attributes) {
  attributes.set("offsets", std::vector<std::string>{"seq", "seq", "kv_seq", "kv_seq"});
  attributes.set("ring_parts", int64_t{3});
  return attributes;
}

}  // namespace

// Every case is also the forward half of a gradient check: out and lse get upstream gradients unless `upstream` says otherwise.
const OpCases kAttention("attention", {
    {.name = "causal", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]")},
     .attributes = masked(true, 0), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "odd_sizes", .operands = {normal("f32[batch=1, seq=7, kv_heads=3, q_per_kv=1, head_dim=5]"), normal("f32[batch=1, kv_seq=7, kv_heads=3, head_dim=5]"), normal("f32[batch=1, kv_seq=7, kv_heads=3, head_dim=5]")},
     .attributes = masked(true, 0), .results = {"f32[batch=1, seq=7, kv_heads=3, q_per_kv=1, head_dim=5]", "f32[batch=1, seq=7, kv_heads=3, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "multi_query", .operands = {normal("f32[batch=2, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]"), normal("f32[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"), normal("f32[batch=2, kv_seq=5, kv_heads=1, head_dim=2]")},
     .attributes = masked(true, 0, 1.0), .results = {"f32[batch=2, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]", "f32[batch=2, seq=5, kv_heads=1, q_per_kv=4]"}, .other_dtypes = false},
    {.name = "cross_with_value_dim", .operands = {normal("f32[batch=1, seq=3, kv_heads=2, q_per_kv=1, head_dim=4]"), normal("f32[batch=1, kv_seq=6, kv_heads=2, head_dim=4]"), normal("f32[batch=1, kv_seq=6, kv_heads=2, value_dim=3]")},
     .attributes = masked(false, 0), .results = {"f32[batch=1, seq=3, kv_heads=2, q_per_kv=1, value_dim=3]", "f32[batch=1, seq=3, kv_heads=2, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "window", .operands = {normal("f32[batch=1, seq=8, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[batch=1, kv_seq=8, kv_heads=1, head_dim=4]"), normal("f32[batch=1, kv_seq=8, kv_heads=1, head_dim=4]")},
     .attributes = masked(true, 3), .results = {"f32[batch=1, seq=8, kv_heads=1, q_per_kv=2, head_dim=4]", "f32[batch=1, seq=8, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "window_longer_than_seq", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=2]"), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=2]"), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=2]")},
     .attributes = masked(true, 9), .results = {"f32[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=2]", "f32[batch=1, seq=3, kv_heads=1, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "window_both_ways", .operands = {normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=1, head_dim=3]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, head_dim=3]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, head_dim=3]")},
     .attributes = masked(false, 2), .results = {"f32[batch=1, seq=5, kv_heads=1, q_per_kv=1, head_dim=3]", "f32[batch=1, seq=5, kv_heads=1, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "segments", .operands = {normal("f32[batch=2, seq=6, kv_heads=2, q_per_kv=2, head_dim=2]"), normal("f32[batch=2, kv_seq=6, kv_heads=2, head_dim=2]"), normal("f32[batch=2, kv_seq=6, kv_heads=2, head_dim=2]"),
                                      exactly("i32[batch=2, seq=6]", {1, 1, 1, 2, 2, 3, 1, 2, 2, 2, 2, 2}), exactly("i32[batch=2, kv_seq=6]", {1, 1, 1, 2, 2, 3, 1, 2, 2, 2, 2, 2})},
     .attributes = masked(true, 0), .results = {"f32[batch=2, seq=6, kv_heads=2, q_per_kv=2, head_dim=2]", "f32[batch=2, seq=6, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    // Segment 0 has queries and no keys: those rows see nothing.
    {.name = "rows_that_see_nothing", .operands = {normal("f32[batch=2, seq=4, kv_heads=1, q_per_kv=2, head_dim=3]"), normal("f32[batch=2, kv_seq=4, kv_heads=1, head_dim=3]"), normal("f32[batch=2, kv_seq=4, kv_heads=1, head_dim=3]"),
                                                   exactly("i32[batch=2, seq=4]", {0, 1, 1, 0, 0, 0, 0, 0}), exactly("i32[batch=2, kv_seq=4]", {-1, 1, 1, -1, -1, -1, -1, -1})},
     .attributes = masked(true, 2), .results = {"f32[batch=2, seq=4, kv_heads=1, q_per_kv=2, head_dim=3]", "f32[batch=2, seq=4, kv_heads=1, q_per_kv=2]"}, .upstream = {0}, .other_dtypes = false},
    {.name = "large_scores", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=4]", 30), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=4]", 30), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=4]")},
     .attributes = masked(false, 0), .results = {"f32[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, seq=3, kv_heads=1, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "softcap", .operands = {normal("f32[batch=2, seq=5, kv_heads=2, q_per_kv=2, head_dim=4]", 2), normal("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]", 2), normal("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]")},
     .attributes = with({.scale = 0.5, .softcap = 3}), .results = {"f32[batch=2, seq=5, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=5, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "sinks", .operands = {normal("f32[batch=2, seq=5, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]"), normal("f32[batch=2, kv_seq=5, kv_heads=2, head_dim=4]"), normal("f32[kv_heads=2, q_per_kv=2]")},
     .attributes = with({.scale = 0.5, .sinks = true}), .results = {"f32[batch=2, seq=5, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=5, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "sinks_of_their_own_dtype", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=4]"), normal("f32[batch=1, kv_seq=3, kv_heads=1, head_dim=4]"), normal("bf16[kv_heads=1, q_per_kv=2]")},
     .attributes = with({.scale = 0.5, .sinks = true}), .results = {"f32[batch=1, seq=3, kv_heads=1, q_per_kv=2, head_dim=4]", "f32[batch=1, seq=3, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    // Of segment 9 there is no key: those rows see their sink alone.
    {.name = "softcap_sinks_window_segments", .operands = {normal("f32[batch=2, seq=6, kv_heads=2, q_per_kv=2, head_dim=2]", 2), normal("f32[batch=2, kv_seq=6, kv_heads=2, head_dim=2]", 2), normal("f32[batch=2, kv_seq=6, kv_heads=2, value_dim=3]"),
                                                           exactly("i32[batch=2, seq=6]", {1, 1, 1, 2, 2, 9, 1, 2, 2, 2, 2, 2}), exactly("i32[batch=2, kv_seq=6]", {1, 1, 1, 2, 2, 3, 1, 2, 2, 2, 2, 2}), normal("f32[kv_heads=2, q_per_kv=2]")},
     .attributes = with({.scale = 0.5, .window = 3, .softcap = 2, .sinks = true}), .results = {"f32[batch=2, seq=6, kv_heads=2, q_per_kv=2, value_dim=3]", "f32[batch=2, seq=6, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    // Of the chunk only the FLOPs know; the mask comes from the segments.
    {.name = "chunk", .operands = {normal("f32[batch=1, seq=6, kv_heads=1, q_per_kv=2, head_dim=2]"), normal("f32[batch=1, kv_seq=6, kv_heads=1, head_dim=2]"), normal("f32[batch=1, kv_seq=6, kv_heads=1, head_dim=2]"),
                                   exactly("i32[batch=1, seq=6]", {0, 0, 2, 2, 4, 4}), exactly("i32[batch=1, kv_seq=6]", {0, 0, 2, 2, 4, 4})},
     .attributes = with({.scale = 0.5, .chunk = 2}), .results = {"f32[batch=1, seq=6, kv_heads=1, q_per_kv=2, head_dim=2]", "f32[batch=1, seq=6, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "latent", .operands = {normal("f32[batch=2, seq=3, kv_heads=2, q_per_kv=1, head_dim=24]"), normal("f32[batch=2, kv_seq=3, kv_heads=2, head_dim=24]"), normal("f32[batch=2, kv_seq=3, kv_heads=2, value_dim=16]")},
     .attributes = masked(true, 0, 0.2), .results = {"f32[batch=2, seq=3, kv_heads=2, q_per_kv=1, value_dim=16]", "f32[batch=2, seq=3, kv_heads=2, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "latent_bf16", .operands = {normal("bf16[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=24]"), normal("bf16[batch=1, kv_seq=3, kv_heads=1, head_dim=24]"), normal("bf16[batch=1, kv_seq=3, kv_heads=1, value_dim=16]")},
     .attributes = masked(true, 0, 0.2), .results = {"bf16[batch=1, seq=3, kv_heads=1, q_per_kv=1, value_dim=16]", "f32[batch=1, seq=3, kv_heads=1, q_per_kv=1]"}, .other_dtypes = false},
    {.name = "shard_of_queries", .operands = {normal("f32[batch=2, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=12, kv_heads=1, head_dim=4]"), normal("f32[batch=2, kv_seq=12, kv_heads=1, head_dim=4]"), exactly("i32[]", {5})},
     .attributes = starting(masked(true, 3), 1), .results = {"f32[batch=2, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=4, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "two_halves_of_queries", .operands = {normal("f32[batch=2, seq=6, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=12, kv_heads=1, head_dim=4]"), normal("f32[batch=2, kv_seq=12, kv_heads=1, value_dim=3]"),
                                                   exactly("i32[batch=2, seq=6]", {1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1}), exactly("i32[batch=2, kv_seq=12]", {1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}), normal("f32[kv_heads=1, q_per_kv=2]"),
                                                   exactly("i32[]", {1}), exactly("i32[]", {9})},
     .attributes = starting(with({.scale = 0.5, .softcap = 3, .sinks = true}), 2), .results = {"f32[batch=2, seq=6, kv_heads=1, q_per_kv=2, value_dim=3]", "f32[batch=2, seq=6, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "other_keys_of_a_ring", .operands = {normal("f32[batch=2, seq=6, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=6, kv_heads=1, head_dim=4]"), normal("f32[batch=2, kv_seq=6, kv_heads=1, head_dim=4]"), exactly("i32[]", {3}), exactly("i32[]", {12}), exactly("i32[]", {0}), exactly("i32[]", {15})},
     .attributes = meeting(masked(true, 0)), .results = {"f32[batch=2, seq=6, kv_heads=1, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=6, kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "keys_of_a_ring_out_of_the_window", .operands = {normal("f32[batch=1, seq=6, kv_heads=1, q_per_kv=1, head_dim=4]"), normal("f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]"), normal("f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]"), exactly("i32[]", {0}), exactly("i32[]", {15}), exactly("i32[]", {6}), exactly("i32[]", {9})},
     .attributes = meeting(masked(true, 5)), .results = {"f32[batch=1, seq=6, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, seq=6, kv_heads=1, q_per_kv=1]"}, .upstream = {0}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("bf16[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"), normal("bf16[batch=2, kv_seq=4, kv_heads=2, head_dim=4]")},
     .attributes = masked(true, 0), .results = {"bf16[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
});

const OpErrors kAttentionErrors("attention", {
    {{"f32[batch=1, seq=4, kv_heads=2, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]"}, masked(true, 0),
     "expected the dims [batch, seq, kv_heads, q_per_kv, head_dim]; 'q_per_kv' is missing"},
    {{"f32[batch=1, seq=4, kv_heads=2, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, masked(true, 0), "dim 'kv_heads' has two sizes"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=5, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=5, kv_heads=1, head_dim=4]"}, masked(true, 0), "needs seq and kv_seq of one size"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=3]"}, masked(true, 0), "its name must be 'value_dim'"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "bf16[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, masked(true, 0), "k is bf16"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, masked(true, -1), "window is -1"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "i32[seq=4]", "i32[batch=1, kv_seq=4]"}, masked(true, 0),
     "segment_ids is i32[seq=4]; expected the dims of q's rows, i32[batch=1, seq=4]"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[kv_heads=2, q_per_kv=1]"}, with({.sinks = true}),
     "sinks is f32[kv_heads=2, q_per_kv=1]; expected the dims of q's heads, f32[kv_heads=1, q_per_kv=1]"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "i32[kv_heads=1, q_per_kv=1]"}, with({.sinks = true}), "sinks is i32[kv_heads=1, q_per_kv=1]; expected a float dtype"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, with({.sinks = true}), "there are 3 operands; expected 4, or 6 with both segment ids"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, with({.softcap = -1}), "softcap is -1.000000; expected 0 (none) or a positive number"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, with({.window = 2, .chunk = 2}), "expected one of them: a layer is windowed or chunked"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, with({.chunk = -2}), "chunk is -2; expected 0 (none)"},
    {{"f32[batch=1, seq=3, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]", "i32[]", "i32[]"}, starting(masked(true, 0), 2), "expected a shard with one start, or two halves with one each"},
    {{"f32[batch=1, seq=8, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=6, kv_heads=1, head_dim=4]", "i32[]"}, starting(masked(true, 0), 1), "expected a shard with one start"},
    {{"f32[batch=1, seq=4, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"}, with({.window = 2, .ring = true}), "ring and value_prefix are attributes of cached_attention"},
});

const OpCases kAttentionGradient("attention_gradient", {
    {.name = "causal", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"),
                                    normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), positive("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]"), normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]")},
     .attributes = masked(true, 0), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"}, .other_dtypes = false},
    {.name = "value_dim_window_segments", .operands = {normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, head_dim=2]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, value_dim=3]"),
                                                       normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, value_dim=3]"), positive("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4]"), normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, value_dim=3]"),
                                                       exactly("i32[batch=1, seq=5]", {1, 1, 1, 2, 0}), exactly("i32[batch=1, kv_seq=5]", {1, 1, 1, 2, -1})},
     .attributes = masked(true, 2), .results = {"f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]", "f32[batch=1, kv_seq=5, kv_heads=1, head_dim=2]", "f32[batch=1, kv_seq=5, kv_heads=1, value_dim=3]"}, .other_dtypes = false},
    {.name = "softcap_sinks_and_the_gradient_of_lse", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"),
                                                                   normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), positive("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]"), normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"),
                                                                   normal("f32[kv_heads=2, q_per_kv=2]"), normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]")},
     .attributes = gradient_with({.scale = 0.5, .softcap = 2, .sinks = true}, true), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]", "f32[kv_heads=2, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "segments_and_sinks_bf16", .operands = {normal("bf16[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("bf16[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"), normal("bf16[batch=1, kv_seq=4, kv_heads=1, head_dim=4]"),
                                                     normal("bf16[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"), positive("f32[batch=1, seq=4, kv_heads=1, q_per_kv=2]"), normal("bf16[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"),
                                                     exactly("i32[batch=1, seq=4]", {1, 1, 2, 2}), exactly("i32[batch=1, kv_seq=4]", {1, 1, 2, 2}), normal("bf16[kv_heads=1, q_per_kv=2]")},
     .attributes = gradient_with({.scale = 0.5, .sinks = true}, false), .results = {"bf16[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]", "bf16[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "bf16[batch=1, kv_seq=4, kv_heads=1, head_dim=4]", "f32[kv_heads=1, q_per_kv=2]"}, .other_dtypes = false},
    {.name = "two_halves_of_queries", .operands = {normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=1, kv_seq=8, kv_heads=2, head_dim=4]"), normal("f32[batch=1, kv_seq=8, kv_heads=2, head_dim=4]"),
                                                   normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), positive("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2]"), normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"),
                                                   normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2]"), exactly("i32[]", {2}), exactly("i32[]", {4})},
     .attributes = starting(gradient_with({.scale = 0.5, .window = 5}, true), 2), .results = {"f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=1, kv_seq=8, kv_heads=2, head_dim=4]", "f32[batch=1, kv_seq=8, kv_heads=2, head_dim=4]"}, .other_dtypes = false},
    {.name = "other_keys_of_a_ring", .operands = {normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]"), normal("f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]"),
                                                  normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), positive("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2]"), normal("f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"),
                                                  exactly("i32[]", {2}), exactly("i32[]", {8}), exactly("i32[]", {0}), exactly("i32[]", {10})},
     .attributes = meeting(masked(true, 4)), .results = {"f32[batch=1, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]", "f32[batch=1, kv_seq=4, kv_heads=2, head_dim=4]"}, .other_dtypes = false},
    {.name = "bf16_cross", .operands = {normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]"), normal("bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"), normal("bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"),
                                        normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]"), positive("f32[batch=2, seq=3, kv_heads=1, q_per_kv=2]"), normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]")},
     .attributes = masked(false, 0), .results = {"bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]", "bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]", "bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"}, .other_dtypes = false},
});

const OpCases kChunkSegments("chunk_segments", {
    {.name = "one_sequence", .operands = {exactly("i32[batch=2, seq=7]", {5, 5, 5, 5, 5, 5, 5}), exactly("i32[batch=2, seq=7]", {0, 1, 2, 3, 4, 5, 6})}, .attributes = {{"chunk", int64_t{3}}}, .results = {"i32[batch=2, seq=7]"}},
    // Left padding in a segment of its own, then two sequences, one behind the other.
    {.name = "packed", .operands = {exactly("i32[batch=1, seq=10]", {0, 0, 1, 1, 1, 2, 2, 2, 2, 2}), exactly("i32[batch=1, seq=10]", {0, 0, 0, 1, 2, 0, 1, 2, 3, 4})}, .attributes = {{"chunk", int64_t{2}}}, .results = {"i32[batch=1, seq=10]"}},
    {.name = "a_chunk_comes_back", .operands = {exactly("i32[batch=1, seq=6]", {1, 2, 1, 2, 1, 2}), exactly("i32[batch=1, seq=6]", {0, 0, 1, 1, 4, -1})}, .attributes = {{"chunk", int64_t{4}}}, .results = {"i32[batch=1, seq=6]"}},
});

const OpErrors kChunkSegmentsErrors("chunk_segments", {
    {{"i32[batch=1, seq=4]", "i32[batch=1, seq=3]"}, {{"chunk", int64_t{2}}}, "positions is i32[batch=1, seq=3]; expected the dims of segment_ids"},
    {{"i32[batch=1, seq=4]", "i32[batch=1, seq=4]"}, {{"chunk", int64_t{0}}}, "chunk is 0; expected a positive number of positions"},
});

}  // namespace mw::testing
