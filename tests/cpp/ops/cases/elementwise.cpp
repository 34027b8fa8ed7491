#include "ops/harness.h"

namespace mw::testing {
namespace {

const std::string kWhole = "f32[batch=2, seq=4]";

// One case per shape that matters: equal operands, and for two operands a missing dim and another memory order.
std::vector<OpCase> unary_cases(OperandSpec (*fill)(std::string), const std::string& result = kWhole) {
  return {{.name = "matrix", .operands = {fill(kWhole)}, .results = {result}}};
}
OperandSpec plain(std::string type) { return normal(std::move(type)); }
OperandSpec above_zero(std::string type) { return positive(std::move(type)); }

std::vector<OpCase> binary_cases(OperandSpec (*a)(std::string), OperandSpec (*b)(std::string), const std::string& result = kWhole) {
  return {
      {.name = "same", .operands = {a(kWhole), b(kWhole)}, .results = {result}},
      {.name = "second_lacks_a_dim", .operands = {a(kWhole), b("f32[seq=4]")}, .results = {result}},
      {.name = "first_lacks_a_dim", .operands = {a("f32[batch=2]"), b(kWhole)}, .results = {result}},
      {.name = "another_order", .operands = {a(kWhole), b("f32[seq=4, batch=2]")}, .results = {result}},
      {.name = "f32_number", .operands = {a(kWhole), fixed(b("f32[]"))}, .results = {result}},
  };
}

const std::string kBool = "u8[batch=2, seq=4]";

}  // namespace

const OpCases kNeg("neg", unary_cases(plain)), kExp("exp", unary_cases(plain)), kLog("log", unary_cases(above_zero)), kSqrt("sqrt", unary_cases(above_zero)),
    kRsqrt("rsqrt", unary_cases(above_zero)), kReciprocal("reciprocal", unary_cases(above_zero)), kSquare("square", unary_cases(plain)), kAbs("abs", unary_cases(distinct)),
    kSin("sin", unary_cases(plain)), kCos("cos", unary_cases(plain)), kTanh("tanh", unary_cases(plain)), kSigmoid("sigmoid", unary_cases(plain)), kSilu("silu", unary_cases(plain)),
    kRelu("relu", unary_cases(distinct)), kGeluTanh("gelu_tanh", unary_cases(plain)), kGeluErf("gelu_erf", unary_cases(plain)), kErf("erf", unary_cases(plain)),
    kIsFinite("is_finite", unary_cases(plain, kBool));
// Away from the whole numbers, where the derivative is 0.
OperandSpec between_whole_numbers() {
  OperandSpec operand = exactly(kWhole, {-2.7, -1.5, -0.25, 0.3, 0.8, 1.1, 4.5, 100.9});
  operand.differentiable = true;
  return operand;
}
const OpCases kFloor("floor", {{.name = "matrix", .operands = {between_whole_numbers()}, .results = {kWhole}}});
const OpCases kLogicalNot("logical_not", {{.name = "mask", .operands = {mask(kBool)}, .results = {kBool}}});

const OpCases kAdd("add", binary_cases(plain, plain)), kSub("sub", binary_cases(plain, plain)), kMul("mul", binary_cases(plain, plain)), kDiv("div", binary_cases(plain, above_zero)),
    kPow("pow", binary_cases(above_zero, plain)), kEq("eq", binary_cases(plain, plain, kBool)), kNe("ne", binary_cases(plain, plain, kBool)),
    kLt("lt", binary_cases(plain, plain, kBool)), kLe("le", binary_cases(plain, plain, kBool)), kGt("gt", binary_cases(plain, plain, kBool)), kGe("ge", binary_cases(plain, plain, kBool));
const OpCases kMax("max", binary_cases(plain, plain)), kMin("min", binary_cases(plain, plain));
const OpCases kAnd("logical_and", {{.name = "masks", .operands = {mask(kBool), mask("u8[seq=4]")}, .results = {kBool}}});
const OpCases kOr("logical_or", {{.name = "masks", .operands = {mask(kBool), mask("u8[seq=4]")}, .results = {kBool}}});

const OpErrors kAddErrors("add", {
    {{"f32[batch=2, seq=4]", "f32[embed=4]"}, {}, "neither holds all dims of the other ('embed' is missing in the first)"},
    {{"f32[batch=2, seq=4]", "f32[seq=3]"}, {}, "dim 'seq' has two sizes"},
    {{"f32[seq=4]", "bf16[seq=4]"}, {}, "have different dtypes; cast one of them"},
    {{"f32[seq=4]", "i32[]"}, {}, "have different dtypes"},
});

const OpCases kSelect("select", {
    {.name = "same", .operands = {mask(kBool), normal(kWhole), normal(kWhole)}, .results = {kWhole}},
    {.name = "mask_lacks_a_dim", .operands = {mask("u8[seq=4]"), normal(kWhole), normal("f32[batch=2]")}, .results = {kWhole}},
    {.name = "number", .operands = {mask(kBool), normal(kWhole), constant_of(fixed(normal("f32[]")))}, .results = {kWhole}},
});
const OpErrors kSelectErrors("select", {{{"f32[seq=4]", "f32[seq=4]", "f32[seq=4]"}, {}, "expected u8"}});

const OpCases kCast("cast", {
    {.name = "to_f32", .operands = {normal("bf16[batch=2, seq=4]")}, .attributes = {{"dtype", "f32"}}, .results = {"f32[batch=2, seq=4]"}, .other_dtypes = false},
    {.name = "to_bf16", .operands = {normal(kWhole)}, .attributes = {{"dtype", "bf16"}}, .results = {"bf16[batch=2, seq=4]"}, .other_dtypes = false},
    {.name = "to_integer", .operands = {constant_of(normal(kWhole, 5))}, .attributes = {{"dtype", "i32"}}, .results = {"i32[batch=2, seq=4]"}},
    {.name = "from_mask", .operands = {mask(kBool)}, .attributes = {{"dtype", "f32"}}, .results = {"f32[batch=2, seq=4]"}, .other_dtypes = false},
});
const OpErrors kCastErrors("cast", {{{"f32[seq=4]"}, {{"dtype", "floot32"}}, "did you mean 'float32'?"}});

const OpCases kConstant("constant", {
    {.name = "number", .attributes = {{"type", "f32[]"}, {"value", 0.1}}, .results = {"f32[]"}},
    {.name = "matrix", .attributes = {{"type", "f32[batch=2, seq=4]"}, {"value", -2.0}}, .results = {"f32[batch=2, seq=4]"}},
});
const OpErrors kConstantErrors("constant", {{{}, {{"type", "f32"}, {"value", 1.0}}, "is not a type"}});

}  // namespace mw::testing
