#include "ops/attention.h"

#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes windowed(int64_t window) { return AttentionAttributes{.scale = 0.5, .window = window}.to_attributes(); }

}  // namespace

const OpCases kCacheWrite("cache_write", {
    {.name = "tokens_of_three_slots", .operands = {normal("f32[slot=3, kv_seq=4, kv_heads=2, head_dim=2]"), normal("f32[batch=1, seq=5, kv_heads=2, head_dim=2]"), exactly("i32[batch=1, seq=5]", {0, 0, 2, -1, 1}), exactly("i32[batch=1, seq=5]", {1, 2, 0, 0, 3})},
     .results = {"f32[slot=3, kv_seq=4, kv_heads=2, head_dim=2]"}},
    {.name = "values", .operands = {normal("f32[slot=1, kv_seq=3, kv_heads=1, value_dim=4]"), normal("f32[batch=2, seq=1, kv_heads=1, value_dim=4]"), exactly("i32[batch=2, seq=1]", {0}), exactly("i32[batch=2, seq=1]", {2, 0})},
     .results = {"f32[slot=1, kv_seq=3, kv_heads=1, value_dim=4]"}},
});

const OpErrors kCacheWriteErrors("cache_write", {
    {{"f32[slot=1, kv_seq=3, kv_heads=2, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, {}, "dim 'kv_heads' has two sizes"},
    {{"bf16[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, {}, "x is f32"},
    {{"f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[batch=1, seq=1, kv_heads=1, head_dim=4]", "i32[batch=1, seq=2]", "i32[batch=1, seq=1]"}, {}, "slots is i32[batch=1, seq=2]"},
});

const OpCases kCachedAttention("cached_attention", {
    {.name = "three_slots", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=2]"), normal("f32[slot=3, kv_seq=5, kv_heads=2, head_dim=2]"), normal("f32[slot=3, kv_seq=5, kv_heads=2, head_dim=2]"),
                                         exactly("i32[batch=2, seq=4]", {0, 0, 2, -1, 1, 1, 1, -1}), exactly("i32[batch=2, seq=4]", {0, 1, 4, 0, 2, 3, 4, 0})},
     .attributes = windowed(0), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=2]"}},
    {.name = "window_and_value_dim", .operands = {normal("f32[batch=1, seq=3, kv_heads=1, q_per_kv=3, head_dim=4]"), normal("f32[slot=2, kv_seq=6, kv_heads=1, head_dim=4]"), normal("f32[slot=2, kv_seq=6, kv_heads=1, value_dim=3]"),
                                                  exactly("i32[batch=1, seq=3]", {1, 0, 1}), exactly("i32[batch=1, seq=3]", {5, 3, 0})},
     .attributes = windowed(2), .results = {"f32[batch=1, seq=3, kv_heads=1, q_per_kv=3, value_dim=3]"}},
});

const OpErrors kCachedAttentionErrors("cached_attention", {
    {{"f32[batch=1, seq=1, kv_heads=1, q_per_kv=1, head_dim=4]", "f32[slot=1, kv_seq=3, kv_heads=1, head_dim=4]", "f32[slot=2, kv_seq=3, kv_heads=1, head_dim=4]", "i32[batch=1, seq=1]", "i32[batch=1, seq=1]"}, windowed(0), "dim 'slot' has two sizes"},
});

}  // namespace mw::testing
