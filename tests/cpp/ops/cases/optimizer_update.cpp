#include "ops/harness.h"

namespace mw::testing {
namespace {

Attributes adamw_of(double weight_decay) { return {{"beta1", 0.9}, {"beta2", 0.95}, {"eps", 1e-8}, {"weight_decay", weight_decay}}; }
Attributes with(Attributes attributes, std::string name, AttributeValue value) {
  attributes.set(std::move(name), std::move(value));
  return attributes;
}
OperandSpec scalar(double value) { return exactly("f32[]", {value}); }

}  // namespace

const OpCases kSumOfSquares("sum_of_squares", {
    {.name = "one", .operands = {normal("f32[mlp=4, embed=6]")}, .results = {"f32[]"}, .other_dtypes = false},
    {.name = "three_of_different_order", .operands = {normal("f32[mlp=4, embed=6]"), normal("f32[embed=6]"), normal("f32[]")}, .results = {"f32[]"}, .other_dtypes = false},
    {.name = "bf16", .operands = {normal("bf16[embed=6]")}, .results = {"f32[]"}, .other_dtypes = false},
});

const OpErrors kSumOfSquaresErrors("sum_of_squares", {
    {{}, {}, "sum_of_squares has no operand"},
    {{"i32[embed=3]"}, {}, "expected a float dtype"},
});

const OpCases kAdamw("adamw", {
    {.name = "decay", .operands = {normal("f32[mlp=4, embed=6]"), normal("f32[mlp=4, embed=6]"), normal("f32[mlp=4, embed=6]"), positive("f32[mlp=4, embed=6]"), scalar(0.01), scalar(0.5), scalar(0.1), scalar(0.05)},
     .attributes = adamw_of(0.1), .results = {"f32[mlp=4, embed=6]", "f32[mlp=4, embed=6]", "f32[mlp=4, embed=6]"}, .other_dtypes = false},
    {.name = "first_step_without_decay", .operands = {normal("f32[embed=5]"), normal("f32[embed=5]"), exactly("f32[embed=5]", {0}), exactly("f32[embed=5]", {0}), scalar(0.1), scalar(1), scalar(0.1), scalar(0.05)},
     .attributes = adamw_of(0), .results = {"f32[embed=5]", "f32[embed=5]", "f32[embed=5]"}, .other_dtypes = false},
    {.name = "copy", .operands = {normal("f32[embed=37]"), normal("f32[embed=37]"), normal("f32[embed=37]"), positive("f32[embed=37]"), scalar(0.01), scalar(0.5), scalar(0.1), scalar(0.05)},
     .attributes = with(adamw_of(0.1), "copy", "bf16"), .results = {"f32[embed=37]", "f32[embed=37]", "f32[embed=37]", "bf16[embed=37]"}, .other_dtypes = false},
});

const OpErrors kAdamwErrors("adamw", {
    {{"bf16[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[]", "f32[]", "f32[]", "f32[]"}, adamw_of(0), "weight is bf16[embed=3]; expected f32"},
    {{"f32[embed=3]", "f32[embed=4]", "f32[embed=3]", "f32[embed=3]", "f32[]", "f32[]", "f32[]", "f32[]"}, adamw_of(0), "gradient is f32[embed=4]; expected the dims of weight"},
    {{"f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[]", "f32[]", "f32[]"}, adamw_of(0), "lr is f32[embed=3]; expected the dims of a scalar, f32[]"},
    {{"f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[embed=3]", "f32[]", "f32[]", "f32[]", "f32[]"}, with(adamw_of(0), "copy", "f32"), "copy is f32; expected bf16"},
});

const OpCases kSgd("sgd", {
    {.name = "momentum_and_decay", .operands = {normal("f32[mlp=4, embed=6]"), normal("f32[mlp=4, embed=6]"), normal("f32[mlp=4, embed=6]"), scalar(0.1), scalar(0.5)}, .attributes = {{"momentum", 0.9}, {"weight_decay", 0.1}},
     .results = {"f32[mlp=4, embed=6]", "f32[mlp=4, embed=6]"}, .other_dtypes = false},
    {.name = "plain", .operands = {normal("f32[embed=5]"), normal("f32[embed=5]"), exactly("f32[embed=5]", {0}), scalar(0.1), scalar(1)}, .attributes = {{"momentum", 0.0}, {"weight_decay", 0.0}}, .results = {"f32[embed=5]", "f32[embed=5]"},
     .other_dtypes = false},
    {.name = "copy", .operands = {normal("f32[embed=37]"), normal("f32[embed=37]"), normal("f32[embed=37]"), scalar(0.1), scalar(1)}, .attributes = {{"momentum", 0.9}, {"weight_decay", 0.1}, {"copy", "bf16"}},
     .results = {"f32[embed=37]", "f32[embed=37]", "bf16[embed=37]"}, .other_dtypes = false},
});

const OpErrors kSgdErrors("sgd", {
    {{"f32[embed=3]", "f32[embed=3]", "f32[mlp=3]", "f32[]", "f32[]"}, {{"momentum", 0.0}, {"weight_decay", 0.0}}, "momentum_buffer is f32[mlp=3]; expected the dims of weight"},
});

}  // namespace mw::testing
