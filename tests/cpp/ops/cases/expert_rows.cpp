#include "ops/harness.h"

namespace mw::testing {
namespace {

// Four tokens, two choices each; expert 1 of 4 has no rows.
OperandSpec choices() { return exactly("i32[batch=2, seq=2, top_k=2]", {2, 0, 3, 2, 2, 3, 0, 2}); }
OperandSpec row_experts() { return exactly("i32[expert_rows=6]", {0, 0, 2, 2, 2, 3}); }
const Attributes kExperts{{"experts", int64_t{4}}};

}  // namespace

const OpCases kToExpertRows("to_expert_rows", {
    {.name = "tokens", .operands = {normal("f32[batch=2, seq=2, embed=6]"), choices()}, .attributes = kExperts, .results = {"f32[expert_rows=8, embed=6]"}},
    {.name = "weighted", .operands = {normal("f32[batch=2, seq=2, embed=20]"), choices(), fixed(normal("f32[batch=2, seq=2, top_k=2]"))}, .attributes = kExperts, .results = {"f32[expert_rows=8, embed=20]"}},
    {.name = "choices", .operands = {normal("f32[batch=2, seq=2, top_k=2, embed=4]"), choices()}, .attributes = kExperts, .results = {"f32[expert_rows=8, embed=4]"}},
    {.name = "numbers", .operands = {normal("f32[batch=2, seq=2, top_k=2]"), choices()}, .attributes = kExperts, .results = {"f32[expert_rows=8]"}},
});
const OpErrors kToExpertRowsErrors("to_expert_rows", {
    {{"f32[batch=2, seq=2, embed=6]", "i32[batch=2, seq=2]"}, kExperts, "expected the dims of the tokens, then 'top_k'"},
    {{"f32[seq=2, batch=2, embed=6]", "i32[batch=2, seq=2, top_k=2]"}, kExperts, "expected it to begin with the dims of the tokens"},
    {{"f32[batch=2, seq=2, embed=6]", "i32[batch=2, seq=2, top_k=2]"}, {{"experts", int64_t{0}}}, "experts is 0; expected at least 1"},
    {{"f32[batch=2, seq=2, top_k=2]", "i32[batch=2, seq=2, top_k=2]", "f32[batch=2, seq=2, top_k=2]"}, kExperts, "weights go with float tokens without 'top_k'"},
});

const OpCases kFromExpertRows("from_expert_rows", {
    {.name = "vectors", .operands = {normal("f32[expert_rows=8, embed=6]"), choices()}, .attributes = kExperts, .results = {"f32[batch=2, seq=2, top_k=2, embed=6]"}},
});
const OpErrors kFromExpertRowsErrors("from_expert_rows", {
    {{"f32[expert_rows=7, embed=6]", "i32[batch=2, seq=2, top_k=2]"}, kExperts, "expected expert_rows=8 as the outermost dim"},
});

const OpCases kExpertOfRows("expert_of_rows", {
    {.name = "with_an_idle_expert", .operands = {choices()}, .attributes = kExperts, .results = {"i32[expert_rows=8]"}},
});

const OpCases kCombine("combine", {
    {.name = "weighted", .operands = {normal("f32[expert_rows=8, embed=20]"), choices(), fixed(normal("f32[batch=2, seq=2, top_k=2]"))}, .attributes = kExperts, .results = {"f32[batch=2, seq=2, embed=20]"}},
    {.name = "sum", .operands = {normal("f32[expert_rows=8, embed=6]"), choices()}, .attributes = kExperts, .results = {"f32[batch=2, seq=2, embed=6]"}},
});
const OpErrors kCombineErrors("combine", {
    {{"f32[expert_rows=8, embed=6]", "i32[batch=2, seq=2, top_k=2]", "f32[batch=2, seq=2]"}, kExperts, "expected the dims of the indices"},
    {{"f32[embed=6, expert_rows=8]", "i32[batch=2, seq=2, top_k=2]"}, kExperts, "expected expert_rows=8 as the outermost dim"},
});

const OpCases kExpertRowProducts("expert_row_products", {
    {.name = "vectors", .operands = {normal("f32[expert_rows=8, embed=20]"), choices(), normal("f32[batch=2, seq=2, embed=20]")}, .attributes = kExperts, .results = {"f32[batch=2, seq=2, top_k=2]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[expert_rows=8, embed=20]"), choices(), normal("bf16[batch=2, seq=2, embed=20]")}, .attributes = kExperts, .results = {"f32[batch=2, seq=2, top_k=2]"}, .other_dtypes = false},
});
const OpErrors kExpertRowProductsErrors("expert_row_products", {
    {{"f32[expert_rows=8, embed=6]", "i32[batch=2, seq=2, top_k=2]", "f32[batch=2, seq=2, embed=5]"}, kExperts, "expected the dims of a token"},
});

const OpCases kGroupedDot("grouped_dot", {
    {.name = "gate", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[experts=4, expert_mlp=6, embed=4]"), row_experts()}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[expert_rows=6, expert_mlp=6]"}},
    {.name = "down", .operands = {normal("f32[expert_rows=6, expert_mlp=4]"), normal("f32[experts=4, expert_mlp=4, embed=18]"), row_experts()}, .attributes = {{"contract", names({"expert_mlp"})}}, .results = {"f32[expert_rows=6, embed=18]"}},
    {.name = "gate_and_up", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[experts=4, embed=4, gate_up=2, expert_mlp=4]"), row_experts()}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[expert_rows=6, gate_up=2, expert_mlp=4]"}},
    {.name = "interleaved_back", .operands = {normal("f32[expert_rows=6, expert_mlp=4, gate_up=2]"), normal("f32[experts=4, embed=6, expert_mlp=4, gate_up=2]"), row_experts()}, .attributes = {{"contract", names({"expert_mlp", "gate_up"})}}, .results = {"f32[expert_rows=6, embed=6]"}},
    {.name = "dims_apart", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[experts=4, gate_up=2, embed=4, expert_mlp=6]"), row_experts()}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[expert_rows=6, gate_up=2, expert_mlp=6]"}},
    {.name = "contracted_in_another_order", .operands = {normal("f32[expert_rows=6, gate_up=2, expert_mlp=4]"), normal("f32[experts=4, embed=6, expert_mlp=4, gate_up=2]"), row_experts()}, .attributes = {{"contract", names({"expert_mlp", "gate_up"})}}, .results = {"f32[expert_rows=6, embed=6]"}},
});
const OpErrors kGroupedDotErrors("grouped_dot", {
    {{"f32[embed=4, expert_rows=6]", "f32[experts=4, expert_mlp=6, embed=4]", "i32[expert_rows=6]"}, {{"contract", names({"embed"})}}, "expected 'expert_rows' as the outermost dim"},
    {{"f32[expert_rows=6, embed=4]", "f32[expert_mlp=6, experts=4, embed=4]", "i32[expert_rows=6]"}, {{"contract", names({"embed"})}}, "expected 'experts' as the outermost dim"},
    {{"f32[expert_rows=6, embed=4]", "f32[experts=4, expert_mlp=6, embed=4]", "i32[expert_rows=6]"}, {{"contract", names({"embd"})}}, "did you mean 'embed'?"},
    {{"f32[expert_rows=6, embed=4]", "bf16[experts=4, expert_mlp=6, embed=4]", "i32[expert_rows=6]"}, {{"contract", names({"embed"})}}, "w is bf16"},
    {{"f32[expert_rows=6, seq=2, embed=4]", "f32[experts=4, expert_mlp=6, embed=4]", "i32[expert_rows=6]"}, {{"contract", names({"embed"})}}, "all its dims but expert_rows to be contracted"},
    {{"f32[expert_rows=6, embed=4]", "f32[experts=4, expert_mlp=6, embed=4]", "i32[expert_rows=5]"}, {{"contract", names({"embed"})}}, "expected the dims of one per row"},
});

const OpCases kGroupedDotWeights("grouped_dot_weights", {
    {.name = "gate", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[expert_rows=6, expert_mlp=6]"), row_experts()}, .attributes = {{"type", "f32[experts=4, expert_mlp=6, embed=4]"}}, .results = {"f32[experts=4, expert_mlp=6, embed=4]"}},
    {.name = "down", .operands = {normal("f32[expert_rows=6, expert_mlp=4]"), normal("f32[expert_rows=6, embed=16]"), row_experts()}, .attributes = {{"type", "f32[experts=4, expert_mlp=4, embed=16]"}}, .results = {"f32[experts=4, expert_mlp=4, embed=16]"}},
    {.name = "gate_and_up", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[expert_rows=6, expert_mlp=4, gate_up=2]"), row_experts()}, .attributes = {{"type", "f32[experts=4, embed=4, expert_mlp=4, gate_up=2]"}}, .results = {"f32[experts=4, embed=4, expert_mlp=4, gate_up=2]"}},
    {.name = "dims_apart", .operands = {normal("f32[expert_rows=6, embed=4]"), normal("f32[expert_rows=6, gate_up=2, expert_mlp=4]"), row_experts()}, .attributes = {{"type", "f32[experts=4, gate_up=2, embed=4, expert_mlp=4]"}}, .results = {"f32[experts=4, gate_up=2, embed=4, expert_mlp=4]"}},
    {.name = "bf16_to_f32", .operands = {normal("bf16[expert_rows=6, embed=4]"), normal("bf16[expert_rows=6, expert_mlp=6]"), row_experts()}, .attributes = {{"type", "f32[experts=4, expert_mlp=6, embed=4]"}}, .results = {"f32[experts=4, expert_mlp=6, embed=4]"}, .other_dtypes = false},
});
const OpErrors kGroupedDotWeightsErrors("grouped_dot_weights", {
    {{"f32[expert_rows=6, embed=4]", "f32[expert_rows=6, expert_mlp=6]", "i32[expert_rows=6]"}, {{"type", "f32[experts=4, expert_mlp=5, embed=4]"}}, "do not make weights f32[experts=4, expert_mlp=5, embed=4]"},
    {{"f32[expert_rows=6, embed=4]", "f32[expert_rows=5, expert_mlp=6]", "i32[expert_rows=6]"}, {{"type", "f32[experts=4, expert_mlp=6, embed=4]"}}, "dim 'expert_rows' has two sizes"},
});

}  // namespace mw::testing
