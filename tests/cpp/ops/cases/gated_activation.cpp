#include <cmath>

#include "ops/harness.h"

namespace mw::testing {
namespace {

OperandSpec activation(const char* type) { return normal(type, 2.0); }
// No element near the corner of relu.
OperandSpec off_zero(const char* type) {
  return {.type = type, .fill = Fill::kExactly, .values = {-1.5, 0.7, 2.0, -0.3, 0.2}};
}

// Both sides of every clamp of clamped(), away from its corners.
OperandSpec across_limits(const char* type) {
  return {.type = type, .fill = Fill::kExactly, .values = {-3.5, 0.7, 2.4, -0.3, 1.2, 5.0, -1.9, 1.6, 0.1, -2.2, -1.1}};
}
Attributes clamped(double limit = 2.0, double alpha = 1.702) { return {{"kind", "clamped_swiglu"}, {"limit", limit}, {"alpha", alpha}}; }

}  // namespace

const OpCases kGatedActivation("gated_activation", {
    {.name = "silu", .operands = {activation("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]")}, .attributes = {{"kind", "silu"}}, .results = {"f32[batch=2, seq=4, mlp=6]"}},
    {.name = "gelu_tanh", .operands = {activation("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "gelu_tanh"}}, .results = {"f32[seq=3, mlp=5]"}},
    {.name = "gelu_erf", .operands = {activation("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "gelu_erf"}}, .results = {"f32[seq=3, mlp=5]"}},
    {.name = "relu", .operands = {off_zero("f32[seq=3, mlp=5]"), normal("f32[seq=3, mlp=5]")}, .attributes = {{"kind", "relu"}}, .results = {"f32[seq=3, mlp=5]"}},
    {.name = "clamped_swiglu_within_limits", .operands = {activation("f32[batch=2, seq=4, mlp=6]"), activation("f32[batch=2, seq=4, mlp=6]")}, .attributes = clamped(100), .results = {"f32[batch=2, seq=4, mlp=6]"}},
    {.name = "clamped_swiglu", .operands = {across_limits("f32[seq=3, mlp=5]"), across_limits("f32[seq=3, mlp=5]")}, .attributes = clamped(), .results = {"f32[seq=3, mlp=5]"}},
    {.name = "clamped_swiglu_gate", .operands = {across_limits("f32[seq=3, mlp=7]"), normal("f32[seq=3, mlp=7]", 0.3)}, .attributes = clamped(2, 0.5), .results = {"f32[seq=3, mlp=7]"}},
    {.name = "clamped_swiglu_up", .operands = {normal("f32[seq=3, mlp=7]", 0.3), across_limits("f32[seq=3, mlp=7]")}, .attributes = clamped(), .results = {"f32[seq=3, mlp=7]"}},
});

const OpErrors kGatedActivationErrors("gated_activation", {
    {{"f32[mlp=4]", "f32[mlp=4]"}, {{"kind", "sillu"}}, "did you mean 'silu'?"},
    {{"f32[mlp=4]", "f32[mlp=4]"}, clamped(0), "limit is 0.000000; expected a positive number"},
    {{"f32[mlp=4]", "f32[mlp=4]"}, clamped(7, INFINITY), "alpha is inf; expected a finite number"},
    {{"f32[seq=2, mlp=4]", "f32[mlp=4]"}, {{"kind", "silu"}}, "up is f32[mlp=4]; expected the dims of gate"},
    {{"f32[mlp=4]", "bf16[mlp=4]"}, {{"kind", "silu"}}, "up is bf16[mlp=4]; expected f32"},
});

const OpCases kGatedActivationGradient("gated_activation_gradient", {
    {.name = "silu", .operands = {activation("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]"), normal("f32[batch=2, seq=4, mlp=6]")}, .attributes = {{"kind", "silu"}},
     .results = {"f32[batch=2, seq=4, mlp=6]", "f32[batch=2, seq=4, mlp=6]"}},
    {.name = "gelu_tanh", .operands = {activation("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "gelu_tanh"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
    {.name = "gelu_erf", .operands = {activation("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "gelu_erf"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
    {.name = "clamped_swiglu", .operands = {across_limits("f32[mlp=11]"), normal("f32[mlp=11]", 0.3), normal("f32[mlp=11]")}, .attributes = clamped(), .results = {"f32[mlp=11]", "f32[mlp=11]"}},
    {.name = "clamped_swiglu_up", .operands = {normal("f32[seq=2, mlp=11]"), across_limits("f32[seq=2, mlp=11]"), normal("f32[seq=2, mlp=11]")}, .attributes = clamped(2, 1), .results = {"f32[seq=2, mlp=11]", "f32[seq=2, mlp=11]"}},
    {.name = "relu", .operands = {off_zero("f32[mlp=7]"), normal("f32[mlp=7]"), normal("f32[mlp=7]")}, .attributes = {{"kind", "relu"}}, .results = {"f32[mlp=7]", "f32[mlp=7]"}},
});

}  // namespace mw::testing
