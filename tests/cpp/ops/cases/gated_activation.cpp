#include "ops/harness.h"

namespace mw::testing {
namespace {

OperandSpec activation(const char* type) { return normal(type, 2.0); }
// No element near the corner of relu.
OperandSpec off_zero(const char* type) {
  return {.type = type, .fill = Fill::kExactly, .values = {-1.5, 0.7, 2.0, -0.3, 0.2}};
}

}  // namespace

const OpCases kGatedActivation("gated_activation", {
    {.name = "silu", .operands = {activation("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]")}, .attributes = {{"kind", "silu"}}, .results = {"f32[batch=2, seq=4, mlp=6]"}},
    {.name = "gelu_tanh", .operands = {activation("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "gelu_tanh"}}, .results = {"f32[seq=3, mlp=5]"}},
    {.name = "gelu_erf", .operands = {activation("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "gelu_erf"}}, .results = {"f32[seq=3, mlp=5]"}},
    {.name = "relu", .operands = {off_zero("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "relu"}}, .results = {"f32[seq=3, mlp=5]"}},
});

const OpErrors kGatedActivationErrors("gated_activation", {
    {{"f32[mlp=4]", "f32[mlp=4]"}, {{"kind", "sillu"}}, "did you mean 'silu'?"},
    {{"f32[seq=2, mlp=4]", "f32[mlp=4]"}, {{"kind", "silu"}}, "up is f32[mlp=4]; expected the dims of gate"},
    {{"f32[mlp=4]", "bf16[mlp=4]"}, {{"kind", "silu"}}, "up is bf16[mlp=4]; expected f32"},
});

const OpCases kGatedActivationGradient("gated_activation_gradient", {
    {.name = "silu", .operands = {activation("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]")}, .attributes = {{"kind", "silu"}},
     .results = {"f32[batch=2, seq=4, mlp=6]", "f32[batch=2, seq=4, mlp=6]"}},
    {.name = "gelu_tanh", .operands = {activation("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "gelu_tanh"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
    {.name = "gelu_erf", .operands = {activation("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "gelu_erf"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
    {.name = "relu", .operands = {off_zero("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "relu"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
});

}  // namespace mw::testing
