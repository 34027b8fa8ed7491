// gated_activation: y = act(gate) * up (Shazeer 2020), and its gradient. "clamped_swiglu" (GPT-OSS):
//   y = (u + 1) g sigmoid(alpha g) with g = min(gate, limit), u = clamp(up, -limit, limit); no gradient passes where one is clamped.
#include "ops/gated_activation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/op_list.h"

namespace mw {
namespace {

const std::vector<std::string> kKinds{"silu", "gelu_tanh", "gelu_erf", "relu", "clamped_swiglu"};

bool is_clamped(const Attributes& attributes) { return attributes.text("kind") == "clamped_swiglu"; }
ClampedSwiglu clamped_of(const Attributes& attributes) {
  return {attributes.number_or("limit", 7.0), attributes.number_or("alpha", 1.702)};
}

void check(const Signature& signature) {
  const Type &gate = signature.operand(0), &up = signature.operand(1);
  const std::string& kind = signature.attributes->text("kind");
  bool known = false;
  for (const std::string& name : kKinds) known |= name == kind;
  if (!known)
    throw UserError("there is no activation '" + kind + "'; expected one of 'silu', 'gelu_tanh', 'gelu_erf', 'relu', 'clamped_swiglu'" +
                    did_you_mean(kind, kKinds));
  if (is_clamped(*signature.attributes)) {
    const ClampedSwiglu clamped = clamped_of(*signature.attributes);
    if (!(clamped.limit > 0)) throw UserError("limit is " + std::to_string(clamped.limit) + "; expected a positive number");
    if (!std::isfinite(clamped.alpha)) throw UserError("alpha is " + std::to_string(clamped.alpha) + "; expected a finite number");
  }
  expect_float("gate", gate);
  expect_same_dims("up", up, "gate", gate.dims);
  expect_dtype("up", up, gate.dtype);
}

double slope(const std::string& kind, double x) {
  using std::numbers::inv_sqrtpi;
  using std::numbers::sqrt2;
  if (kind == "relu") return x > 0 ? 1 : 0;
  if (kind == "silu") {
    const double s = 1 / (1 + std::exp(-x));
    return s + x * s * (1 - s);
  }
  if (kind == "gelu_erf") return 0.5 * (1 + std::erf(x / sqrt2)) + x * std::exp(-x * x / 2) * inv_sqrtpi / sqrt2;
  const double k = sqrt2 * inv_sqrtpi, t = std::tanh(k * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x);
}

// y and its slopes along gate and up, of one element.
struct Point {
  double y, gate_slope, up_slope;
};
Point point_of(const Attributes& attributes, double gate, double up) {
  const std::string& kind = attributes.text("kind");
  if (!is_clamped(attributes)) {
    const double activated = elementwise_value(kind, {&gate, 1});
    return {activated * up, up * slope(kind, gate), activated};
  }
  const auto [limit, alpha] = clamped_of(attributes);
  const double g = std::min(gate, limit), u = std::clamp(up, -limit, limit) + 1, s = 1 / (1 + std::exp(-alpha * g));
  return {u * g * s, gate <= limit ? u * (s + alpha * g * s * (1 - s)) : 0.0, std::abs(up) <= limit ? g * s : 0.0};
}

std::vector<Type> infer(const Signature& signature) {
  check(signature);
  return {signature.operand(0)};
}

void gradient(GradientContext& context);

void reference(const ReferenceContext& context) {
  const HostArray &gate = context.operand(0), &up = context.operand(1);
  for (size_t i = 0; i < gate.data.size(); ++i) context.result(0).data[i] = point_of(*context.attributes, gate.data[i], up.data[i]).y;
}

// min(gate, limit), clamp(up, -limit, limit), sigmoid(alpha g)
struct Clamped {
  Tensor g, u, s;
  double alpha;
};
Clamped clamp(Tensor gate, Tensor up, const Attributes& attributes) {
  Builder& builder = *gate.builder;
  const auto [limit, alpha] = clamped_of(attributes);
  const Tensor g = minimum(gate, constant(builder, limit));
  const Tensor u = maximum(minimum(up, constant(builder, limit)), constant(builder, -limit));
  return {g, u, unary("sigmoid", g * alpha), alpha};
}

std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  if (!is_clamped(attributes)) return {unary(attributes.text("kind"), operands[0]) * operands[1]};
  const Clamped c = clamp(operands[0], operands[1], attributes);
  return {(c.u + 1.0) * c.g * c.s};
}

std::vector<Type> infer_gradient(const Signature& signature) {
  check(signature);
  const Type &gate = signature.operand(0), &dy = signature.operand(2);
  expect_same_dims("the gradient of y", dy, "gate", gate.dims);
  expect_dtype("the gradient of y", dy, gate.dtype);
  return {gate, gate};
}

void reference_gradient(const ReferenceContext& context) {
  const HostArray &gate = context.operand(0), &up = context.operand(1), &dy = context.operand(2);
  for (size_t i = 0; i < gate.data.size(); ++i) {
    const Point point = point_of(*context.attributes, gate.data[i], up.data[i]);
    context.result(0).data[i] = dy.data[i] * point.gate_slope;
    context.result(1).data[i] = dy.data[i] * point.up_slope;
  }
}

std::vector<Tensor> decompose_gradient(const std::vector<Tensor>& operands, const Attributes& attributes) {
  const std::string& kind = attributes.text("kind");
  const Tensor gate = operands[0], up = operands[1], dy = operands[2];
  if (is_clamped(attributes)) {
    const Clamped c = clamp(gate, up, attributes);
    const Tensor slope = c.s * (c.g * (-c.s + 1.0) * c.alpha + 1.0), nothing = dy * 0.0;
    const Tensor free_gate = binary("eq", gate, c.g), free_up = binary("eq", up, c.u);
    return {select(free_gate, dy * (c.u + 1.0) * slope, nothing), select(free_up, dy * c.g * c.s, nothing)};
  }
  const Tensor activated = unary(kind, gate);
  return {unary_gradient(kind, gate, activated, dy * up), dy * activated};
}

template <int flops_per_element>
Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = flops_per_element * static_cast<double>(signature.operand(0).elements());
  return cost;
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "gated_activation",
          .doc =
              "y = act(gate) * up (Shazeer 2020); kind: silu, gelu_tanh, gelu_erf, relu; or clamped_swiglu (GPT-OSS): (clamp(up, -limit, "
              "limit) + 1) g sigmoid(alpha g), g = min(gate, limit).",
          .num_operands = 2,
          .infer = infer,
          .gradient = gradient,
          .cost = cost<6>,
          .reference = reference,
          .decompose = decompose,
          .elementwise = true},
    OpDef{.name = "gated_activation_gradient",
          .doc = "gate, up, dy -> dgate = dy up act'(gate), dup = dy act(gate); of clamped_swiglu 0 where gate or up is clamped.",
          .num_operands = 3,
          .infer = infer_gradient,
          .cost = cost<12>,
          .reference = reference_gradient,
          .decompose = decompose_gradient,
          .elementwise = true},
};

void gradient(GradientContext& context) {
  const Tensor gate = context.operands[0];
  const std::vector<Tensor> gradients = context.builder.append(
      kDefs[1], {gate, context.operands[1], cast(*context.upstream[0], gate.dtype())}, context.attributes(), Source::here());
  for (size_t i = 0; i < 2; ++i) context.gradients[i] = cast(gradients[i], context.gradient_dtype(i));
}

}  // namespace

std::span<const OpDef> gated_activation_ops() { return kDefs; }

Tensor gated_activation(Tensor gate, Tensor up, std::string kind, Source source) {
  return gate.builder->append1(kDefs[0], {gate, up}, {{"kind", std::move(kind)}}, source);
}

Tensor gated_activation(Tensor gate, Tensor up, const ClampedSwiglu& clamped, Source source) {
  return gate.builder->append1(kDefs[0], {gate, up}, {{"kind", "clamped_swiglu"}, {"limit", clamped.limit}, {"alpha", clamped.alpha}},
                               source);
}

}  // namespace mw
