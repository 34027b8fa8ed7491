#include "ops/attention.h"

#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes masked(bool causal, int64_t window, double scale = 0.5) { return AttentionAttributes{.scale = scale, .causal = causal, .window = window}.to_attributes(); }

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
});

const OpCases kAttentionGradient("attention_gradient", {
    {.name = "causal", .operands = {normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"), normal("f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"),
                                    normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]"), positive("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2]"), normal("f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]")},
     .attributes = masked(true, 0), .results = {"f32[batch=2, seq=4, kv_heads=2, q_per_kv=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]", "f32[batch=2, kv_seq=4, kv_heads=2, head_dim=4]"}, .other_dtypes = false},
    {.name = "value_dim_window_segments", .operands = {normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, head_dim=2]"), normal("f32[batch=1, kv_seq=5, kv_heads=1, value_dim=3]"),
                                                       normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, value_dim=3]"), positive("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4]"), normal("f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, value_dim=3]"),
                                                       exactly("i32[batch=1, seq=5]", {1, 1, 1, 2, 0}), exactly("i32[batch=1, kv_seq=5]", {1, 1, 1, 2, -1})},
     .attributes = masked(true, 2), .results = {"f32[batch=1, seq=5, kv_heads=1, q_per_kv=4, head_dim=2]", "f32[batch=1, kv_seq=5, kv_heads=1, head_dim=2]", "f32[batch=1, kv_seq=5, kv_heads=1, value_dim=3]"}, .other_dtypes = false},
    {.name = "bf16_cross", .operands = {normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]"), normal("bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"), normal("bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"),
                                        normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]"), positive("f32[batch=2, seq=3, kv_heads=1, q_per_kv=2]"), normal("bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]")},
     .attributes = masked(false, 0), .results = {"bf16[batch=2, seq=3, kv_heads=1, q_per_kv=2, head_dim=2]", "bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]", "bf16[batch=2, kv_seq=5, kv_heads=1, head_dim=2]"}, .other_dtypes = false},
});

}  // namespace mw::testing
