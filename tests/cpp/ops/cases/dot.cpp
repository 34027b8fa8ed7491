#include "ops/harness.h"

namespace mw::testing {

const OpCases kDot("dot", {
    {.name = "linear", .operands = {normal("f32[batch=2, seq=4, embed=6]"), normal("f32[mlp=8, embed=6]")}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[batch=2, seq=4, mlp=8]"}},
    {.name = "weight_first_in_memory_order", .operands = {normal("f32[batch=2, mlp=8]"), normal("f32[mlp=8, embed=6]")}, .attributes = {{"contract", names({"mlp"})}}, .results = {"f32[batch=2, embed=6]"}},
    {.name = "batched", .operands = {normal("f32[experts=2, tokens=3, embed=4]"), normal("f32[experts=2, embed=4, mlp=5]")}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[experts=2, tokens=3, mlp=5]"}},
    {.name = "two_contracted", .operands = {normal("f32[batch=3, kv_heads=2, head_dim=4]"), normal("f32[embed=5, kv_heads=2, head_dim=4]")}, .attributes = {{"contract", names({"kv_heads", "head_dim"})}}, .results = {"f32[batch=3, embed=5]"}},
    {.name = "contracted_in_another_order", .operands = {normal("f32[head_dim=4, kv_heads=2, batch=3]"), normal("f32[kv_heads=2, embed=5, head_dim=4]")}, .attributes = {{"contract", names({"kv_heads", "head_dim"})}}, .results = {"f32[batch=3, embed=5]"}},
    {.name = "to_a_number", .operands = {normal("f32[embed=4]"), normal("f32[embed=4]")}, .attributes = {{"contract", names({"embed"})}}, .results = {"f32[]"}},
    {.name = "outer_product", .operands = {normal("f32[seq=2]"), normal("f32[embed=4]")}, .attributes = {{"contract", names({})}}, .results = {"f32[seq=2, embed=4]"}},
    {.name = "bf16_to_f32", .operands = {normal("bf16[batch=2, embed=6]"), normal("bf16[mlp=4, embed=6]")}, .attributes = {{"contract", names({"embed"})}, {"dtype", "f32"}}, .results = {"f32[batch=2, mlp=4]"}, .other_dtypes = false},
});

const OpErrors kDotErrors("dot", {
    {{"f32[batch=2, embed=4]", "bf16[mlp=3, embed=4]"}, {{"contract", names({"embed"})}}, "dot wants one float dtype"},
    {{"f32[batch=2, embed=4]", "f32[mlp=3, embed=4]"}, {{"contract", names({"embde"})}}, "did you mean 'embed'?"},
    {{"f32[batch=2, embed=4]", "f32[mlp=3]"}, {{"contract", names({"embed"})}}, "contracted dim 'embed' is not in f32[mlp=3]"},
    {{"f32[batch=2, embed=4]", "f32[mlp=3, embed=5]"}, {{"contract", names({"embed"})}}, "dim 'embed' has two sizes"},
});

}  // namespace mw::testing
