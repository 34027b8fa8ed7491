#include "ops/route.h"

#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes choice(RouteAttributes attributes) { return attributes.to_attributes(); }

const RouteAttributes kMixtral{.k = 2, .normalize = true}, kDeepseekV2{.k = 3, .groups = 4, .groups_selected = 2, .scaling = 16.0},
    kDeepseekV3{.score = "sigmoid", .k = 3, .groups = 4, .groups_selected = 2, .group_score = "top2_sum", .normalize = true, .scaling = 2.5},
    kGptOss{.score = "softmax_of_top_k", .k = 3}, kLlama4{.score = "sigmoid", .k = 1};

}  // namespace

// Logits are further apart than a finite difference reaches: the choice is constant.
const OpCases kRoute("route", {
    {.name = "softmax_normalized", .operands = {distinct("f32[batch=2, seq=4, experts=6]")}, .attributes = choice(kMixtral), .results = {"f32[batch=2, seq=4, top_k=2]", "i32[batch=2, seq=4, top_k=2]"}, .other_dtypes = false},
    {.name = "softmax", .operands = {distinct("f32[batch=2, seq=2, experts=19]")}, .attributes = choice({.k = 4}), .results = {"f32[batch=2, seq=2, top_k=4]", "i32[batch=2, seq=2, top_k=4]"}, .other_dtypes = false},
    {.name = "softmax_with_a_bias", .operands = {distinct("f32[seq=4, experts=5]"), exactly("f32[experts=5]", {0, 2, -2, 4, 0})}, .attributes = choice({.k = 2}), .results = {"f32[seq=4, top_k=2]", "i32[seq=4, top_k=2]"}, .other_dtypes = false},
    {.name = "groups_by_their_best", .operands = {distinct("f32[batch=2, seq=4, experts=8]")}, .attributes = choice(kDeepseekV2), .results = {"f32[batch=2, seq=4, top_k=3]", "i32[batch=2, seq=4, top_k=3]"}, .other_dtypes = false},
    {.name = "groups_by_two_and_a_bias", .operands = {distinct("f32[batch=2, seq=4, experts=16]"), exactly("f32[experts=16]", {0.2, -0.1, 0.3, 0, -0.3})}, .attributes = choice(kDeepseekV3), .results = {"f32[batch=2, seq=4, top_k=3]", "i32[batch=2, seq=4, top_k=3]"}, .other_dtypes = false},
    {.name = "softmax_of_the_chosen", .operands = {distinct("f32[seq=4, experts=6]")}, .attributes = choice(kGptOss), .results = {"f32[seq=4, top_k=3]", "i32[seq=4, top_k=3]"}, .other_dtypes = false},
    {.name = "sigmoid_of_the_best", .operands = {distinct("f32[seq=6, experts=4]")}, .attributes = choice(kLlama4), .results = {"f32[seq=6, top_k=1]", "i32[seq=6, top_k=1]"}, .other_dtypes = false},
    {.name = "lowest_index_at_a_tie", .operands = {exactly("f32[seq=4, experts=20]", {1, 3, 3, 1, 3, 0})}, .attributes = choice({.k = 5, .normalize = true}), .results = {"f32[seq=4, top_k=5]", "i32[seq=4, top_k=5]"}, .other_dtypes = false},
    {.name = "lowest_group_at_a_tie", .operands = {exactly("f32[seq=2, experts=8]", {1, 2, 2, 1, 2, 2, 1, 0})}, .attributes = choice({.k = 3, .groups = 4, .groups_selected = 2}), .results = {"f32[seq=2, top_k=3]", "i32[seq=2, top_k=3]"}, .other_dtypes = false},
});
const OpErrors kRouteErrors("route", {
    {{"bf16[seq=4, experts=6]"}, choice(kMixtral), "logits is bf16[seq=4, experts=6]; expected f32"},
    {{"f32[experts=6, seq=4]"}, choice(kMixtral), "expected 'experts' as the innermost dim"},
    {{"f32[seq=4, experts=6]"}, choice({.score = "softmaks"}), "did you mean 'softmax'?"},
    {{"f32[seq=4, experts=6]"}, choice({.k = 7}), "k = 7 of the 6 experts that may be chosen; expected 1 to 6"},
    {{"f32[seq=4, experts=6]"}, choice({.groups = 4, .groups_selected = 2}), "6 experts do not divide into groups=4"},
    {{"f32[seq=4, experts=8]"}, choice({.groups = 4, .groups_selected = 5}), "groups_selected is 5; expected 1 to groups=4"},
    {{"f32[seq=4, experts=4]"}, choice({.groups = 4, .groups_selected = 2, .group_score = "top2_sum"}), "wants groups of at least 2 experts"},
    {{"f32[seq=4, experts=6]", "f32[experts=5]"}, choice(kMixtral), "expected the dims of one number per expert"},
});

const OpCases kRouteGradient("route_gradient", {
    {.name = "softmax_normalized", .operands = {normal("f32[batch=2, seq=4, experts=6]"), exactly("i32[batch=2, seq=4, top_k=2]", {0, 3, 5, 1, 4, 2}), normal("f32[batch=2, seq=4, top_k=2]")}, .attributes = choice(kMixtral), .results = {"f32[batch=2, seq=4, experts=6]"}, .other_dtypes = false},
    {.name = "softmax_scaled", .operands = {normal("f32[seq=4, experts=19]"), exactly("i32[seq=4, top_k=2]", {0, 18, 5, 1}), normal("f32[seq=4, top_k=2]")}, .attributes = choice({.k = 2, .scaling = 16.0}), .results = {"f32[seq=4, experts=19]"}, .other_dtypes = false},
    {.name = "sigmoid_normalized", .operands = {normal("f32[seq=4, experts=16]"), exactly("i32[seq=4, top_k=3]", {0, 13, 5}), normal("f32[seq=4, top_k=3]")}, .attributes = choice(kDeepseekV3), .results = {"f32[seq=4, experts=16]"}, .other_dtypes = false},
    {.name = "sigmoid", .operands = {normal("f32[seq=4, experts=3]"), exactly("i32[seq=4, top_k=1]", {0, 2}), normal("f32[seq=4, top_k=1]")}, .attributes = choice(kLlama4), .results = {"f32[seq=4, experts=3]"}, .other_dtypes = false},
    {.name = "softmax_of_the_chosen", .operands = {normal("f32[seq=4, experts=6]"), exactly("i32[seq=4, top_k=3]", {0, 3, 5}), normal("f32[seq=4, top_k=3]")}, .attributes = choice(kGptOss), .results = {"f32[seq=4, experts=6]"}, .other_dtypes = false},
});
const OpErrors kRouteGradientErrors("route_gradient", {
    {{"f32[seq=4, experts=6]", "i32[seq=4, top_k=3]", "f32[seq=4, top_k=2]"}, choice(kMixtral), "expected the dims of the tokens"},
});

const OpCases kWithinCapacity("within_capacity", {
    {.name = "two_of_each", .operands = {exactly("i32[batch=2, seq=3, top_k=2]", {0, 1, 0, 2, 1, 0})}, .attributes = {{"experts", int64_t{3}}, {"capacity", int64_t{2}}}, .results = {"f32[batch=2, seq=3, top_k=2]"}, .other_dtypes = false},
});
const OpErrors kWithinCapacityErrors("within_capacity", {
    {{"i32[seq=4, top_k=2]"}, {{"experts", int64_t{0}}, {"capacity", int64_t{2}}}, "at least one expert"},
});

}  // namespace mw::testing
