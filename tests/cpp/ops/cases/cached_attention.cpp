#include "ops/attention.h"

#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes windowed(int64_t window) { return AttentionAttributes{.scale = 0.5, .window = window}.to_attributes(); }

Attributes with(AttentionAttributes attributes) { return attributes.to_attributes(); }

}  // namespace

const OpCases kCacheWrite("cache_write", {
    {.name = "tokens_of_three_slots", .operands = {normal("f32[slot=3, kv_seq=4, kv_heads=2, head_dim=2]"), normal("f32[batch=1, seq=5, kv_heads=2, head_dim=2]"), exactly("i32[batch=1, seq=5]", {0, 0, 2, -1, 1}), exactly("i32[batch=1, seq=5]", {1, 2, 0, 0, 3})},
     .results = {"f32[slot=3, kv_seq=4, kv_heads=2, head_dim=2]"}},
    {.name = "values", .operands = {normal("f32[slot=1, kv_seq=3, kv_heads=1, value_dim=4]"), normal("f32[batch=2, seq=1, kv_heads=1, value_dim=4]"), exactly("i32[batch=2, seq=1]", {0}), exactly("i32[batch=2, seq=1]", {2, 0})},
     .results = {"f32[slot=1, kv_seq=3, kv_heads=1, value_dim=4]"}},
    {.name = "ring", .operands = {normal("f32[slot=2, kv_seq=128, kv_heads=2, head_dim=2]"), normal("f32[batch=1, seq=4, kv_heads=2, head_dim=2]"), exactly("i32[batch=1, seq=4]", {0, 1, 1, -1}), exactly("i32[batch=1, seq=4]", {127, 128, 1000, 0})},
     .attributes = {{"ring", true}}, .results = {"f32[slot=2, kv_seq=128, kv_heads=2, head_dim=2]"}},
});

const OpErrors kCacheWriteErrors("cache_write", {
    {{"f32[slot=1, kv_seq=3, kv_heads=2, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, {}, "dim 'kv_heads' has two sizes"},
    {{"bf16[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, {}, "x is f32"},
    {{"f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=2]", "i32[batch=1, seq=1]"}, {}, "slots is i32[batch=1, seq=2]"},
    {{"f32[slot=1, kv_seq=100, kv_heads=1, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, {{"ring", true}}, "is a ring; expected kv_seq to be a multiple of 128"},
});

const OpCases kCachedAttention("cached_attention", {
    {.name = "three_slots", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=2]"), normal("f32[slot=3, kv_seq=5, kv_heads=2, head_dim=2]"), normal("f32[slot=3, kv_seq=5, kv_heads=2, head_dim=2]"),
                                         exactly("i32[batch=2, seq=4]", {0, 0, 2, -1, 1, 1, 1, -1}), exactly("i32[batch=2, seq=4]", {0, 1, 4, 0, 2, 3, 4, 0})},
     .attributes = windowed(0), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=2]"}},
    {.name = "window_and_value_dim", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, q_per_kv=3, head_dim=4]"), normal("f32[slot=2, kv_seq=6, kv_heads=1, head_dim=4]"), normal("f32[slot=2, kv_seq=6, kv_heads=1, value_dim=3]"),
                                                  exactly("i32[batch=1, seq=3]", {1, 0, 1}), exactly("i32[batch=1, seq=3]", {5, 3, 0})},
     .attributes = windowed(2), .results = {"f32[batch=1, seq=3, kv_heads=1, q_per_kv=3, value_dim=3]"}},
    {.name = "softcap_and_sinks", .operands = {normal("f32[batch=2, seq=2, kv_heads=2, q_per_kv=2, head_dim=4]", 2), normal("f32[slot=2, kv_seq=6, kv_heads=2, head_dim=4]", 2), normal("f32[slot=2, kv_seq=6, kv_heads=2, head_dim=4]"),
                                               exactly("i32[batch=2, seq=2]", {1, 0, 1, -1}), exactly("i32[batch=2, seq=2]", {5, 3, 0, 0}), normal("f32[kv_heads=2, q_per_kv=2]")},
     .attributes = with({.scale = 0.5, .softcap = 3, .sinks = true}), .results = {"f32[batch=2, seq=2, kv_heads=2, q_per_kv=2, head_dim=4]"}},
    {.name = "chunk", .operands = {normal("f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"), normal("f32[slot=2, kv_seq=9, kv_heads=1, head_dim=4]"), normal("f32[slot=2, kv_seq=9, kv_heads=1, head_dim=4]"),
                                   exactly("i32[batch=1, seq=4]", {1, 0, 1, 1}), exactly("i32[batch=1, seq=4]", {5, 3, 6, 8})},
     .attributes = with({.scale = 0.5, .chunk = 3}), .results = {"f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=4]"}},
    {.name = "ring_window", .operands = {normal("f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=2]"), normal("f32[slot=2, kv_seq=128, kv_heads=1, head_dim=2]"), normal("f32[slot=2, kv_seq=128, kv_heads=1, head_dim=2]"),
                                         exactly("i32[batch=1, seq=4]", {1, 0, 1, -1}), exactly("i32[batch=1, seq=4]", {129, 3, 300, 0})},
     .attributes = with({.scale = 0.5, .window = 10, .ring = true}), .results = {"f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=2]"}},
    {.name = "ring_chunk", .operands = {normal("f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=2]"), normal("f32[slot=2, kv_seq=128, kv_heads=1, head_dim=2]"), normal("f32[slot=2, kv_seq=128, kv_heads=1, head_dim=2]"),
                                        exactly("i32[batch=1, seq=4]", {1, 0, 1, 0}), exactly("i32[batch=1, seq=4]", {129, 3, 299, 1000})},
     .attributes = with({.scale = 0.5, .chunk = 100, .ring = true}), .results = {"f32[batch=1, seq=4, kv_heads=1, q_per_kv=2, head_dim=2]"}},
    {.name = "values_in_the_keys", .operands = {normal("f32[batch=1, seq=4, kv_heads=1, q_per_kv=4, head_dim=6]"), normal("f32[slot=2, kv_seq=5, kv_heads=1, head_dim=6]"), exactly("i32[batch=1, seq=4]", {1, 0, 1, 1}), exactly("i32[batch=1, seq=4]", {0, 3, 4, 2})},
     .attributes = with({.scale = 0.5, .value_prefix = 4}), .results = {"f32[batch=1, seq=4, kv_heads=1, q_per_kv=4, value_dim=4]"}},
});

const OpErrors kCachedAttentionErrors("cached_attention", {
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[slot=2, kv_seq=3, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, windowed(0), "dim 'slot' has two sizes"},
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=128, kv_heads=1, head_dim=4]", "f32[slot=1, kv_seq=128, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, with({.window = 128, .ring = true}), "that holds the 128 positions in sight and the 1 tokens of a step: at least 256"},
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=128, kv_heads=1, head_dim=4]", "f32[slot=1, kv_seq=128, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, with({.ring = true}), "ring needs a window or a chunk"},
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, with({.value_prefix = 5}), "value_prefix is 5 and the key cache f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]; expected at most head_dim"},
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, windowed(0), "there are 4 operands; expected 5"},
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, with({.causal = false}), "cached_attention is causal"},
});

}  // namespace mw::testing
