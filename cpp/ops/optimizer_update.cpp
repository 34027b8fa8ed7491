// sum_of_squares, and the optimizer updates adamw and sgd: all in FP32, in the order of operations of torch.optim.
#include "ops/optimizer_update.h"

#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/op_list.h"
#include "ops/reduce.h"

namespace mw {
namespace {

// ---- sum_of_squares: any number of operands -> f32 scalar ----

std::vector<Type> infer_squares(const Signature& signature) {
  if (signature.operands.empty()) throw UserError("sum_of_squares has no operand; expected at least one");
  for (const Type* type : signature.operands) expect_float("an operand", *type);
  return {Type{DType::kF32, {}}};
}

// A dim that one operand lacks must be whole: each shard would add that operand's squares again. (Partition groups the values by
// their axes first.)
DimRole role_squares(const Signature& signature, std::string_view dim) {
  for (const Type* type : signature.operands) {
    if (!type->has(dim)) return {.use = DimUse::kWhole};
  }
  return {.use = DimUse::kContracted};
}

Cost cost_squares(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = 0;
  for (const Type* type : signature.operands) cost.flops += 2.0 * static_cast<double>(type->elements());
  return cost;
}

void reference_squares(const ReferenceContext& context) {
  for (const HostArray* operand : context.operands) {
    for (const double x : operand->data) context.result(0).data[0] += x * x;
  }
}

std::vector<Tensor> decompose_squares(const std::vector<Tensor>& operands, const Attributes&) {
  std::optional<Tensor> sum;
  for (const Tensor& operand : operands) {
    const Tensor squares = square(cast(operand, DType::kF32));
    const Tensor term = squares.type().dims.empty() ? squares : reduce_sum(squares, squares.type().dim_names());
    sum = sum ? *sum + term : term;
  }
  return {*sum};
}

// ---- updates: `arrays` operands of one f32 type, then f32 scalars ----

void check_update(const Signature& signature, std::span<const char* const> names, size_t arrays) {
  for (size_t i = 0; i < names.size(); ++i) {
    expect_dtype(names[i], signature.operand(i), DType::kF32);
    expect_same_dims(names[i], signature.operand(i), i < arrays ? "weight" : "a scalar",
                     i < arrays ? signature.operand(0).dims : std::vector<Dim>{});
  }
}

template <int flops_per_element>
Cost cost_update(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = flops_per_element * static_cast<double>(signature.operand(0).elements());
  return cost;
}

// Adds the new weight in the dtype of the attribute `copy`, where there is one.
std::vector<Type> with_copy(std::vector<Type> results, const Attributes& attributes) {
  if (attributes.find("copy") == nullptr) return results;
  const DType dtype = parse_dtype(attributes.text("copy"));
  if (dtype != DType::kBF16) throw UserError(concat_text("copy is ", dtype_name(dtype), "; expected bf16"));
  results.push_back(results.at(0).with_dtype(dtype));
  return results;
}
Attributes with_copy(Attributes attributes, std::optional<DType> copy) {
  if (copy) attributes.set("copy", std::string(dtype_name(*copy)));
  return attributes;
}
void reference_copy(const ReferenceContext& context, size_t copy) {
  if (context.attributes->find("copy") != nullptr) context.result(copy).data = context.result(0).data;
}
std::vector<Tensor> with_copy(std::vector<Tensor> results, const Attributes& attributes) {
  if (attributes.find("copy") != nullptr) results.push_back(cast(results.at(0), parse_dtype(attributes.text("copy"))));
  return results;
}

// ---- adamw: weight, gradient, m, v, lr, gradient_scale, correction1, correction2 -> weight, m, v [, copy] ----

constexpr std::array<const char*, 8> kAdamwNames{"weight", "gradient",       "first_moment", "second_moment",
                                                 "lr",     "gradient_scale", "correction1",  "correction2"};

std::vector<Type> infer_adamw(const Signature& signature) {
  check_update(signature, kAdamwNames, 4);
  return with_copy({signature.operand(0), signature.operand(2), signature.operand(3)}, *signature.attributes);
}

void reference_adamw(const ReferenceContext& context) {
  const Attributes& a = *context.attributes;
  const double beta1 = a.number("beta1"), beta2 = a.number("beta2"), eps = a.number("eps"), decay = a.number("weight_decay");
  const auto scalar = [&](size_t i) { return context.operand(i).data.at(0); };
  const double lr = scalar(4), scale = scalar(5), step = lr / scalar(6), root2 = std::sqrt(scalar(7));
  for (size_t i = 0; i < context.operand(0).data.size(); ++i) {
    const double g = context.operand(1).data[i] * scale, w = context.operand(0).data[i] * (1 - lr * decay);
    const double m = context.operand(2).data[i] + (1 - beta1) * (g - context.operand(2).data[i]);
    const double v = beta2 * context.operand(3).data[i] + (1 - beta2) * g * g;
    context.result(0).data[i] = w - step * m / (std::sqrt(v) / root2 + eps);
    context.result(1).data[i] = m;
    context.result(2).data[i] = v;
  }
  reference_copy(context, 3);
}

std::vector<Tensor> decompose_adamw(const std::vector<Tensor>& operands, const Attributes& a) {
  const Tensor weight = operands[0], first = operands[2], second = operands[3], lr = operands[4];
  const Tensor g = operands[1] * operands[5];
  const Tensor decayed = weight * (lr * -a.number("weight_decay") + 1.0);
  const Tensor m = first + (g - first) * (1 - a.number("beta1"));
  const Tensor v = second * a.number("beta2") + g * (1 - a.number("beta2")) * g;
  const Tensor denominator = sqrt(v) / sqrt(operands[7]) + a.number("eps");
  return with_copy({decayed - m * (lr / operands[6]) / denominator, m, v}, a);
}

// ---- sgd: weight, gradient, momentum buffer, lr, gradient_scale -> weight, momentum buffer [, copy] ----

constexpr std::array<const char*, 5> kSgdNames{"weight", "gradient", "momentum_buffer", "lr", "gradient_scale"};

std::vector<Type> infer_sgd(const Signature& signature) {
  check_update(signature, kSgdNames, 3);
  return with_copy({signature.operand(0), signature.operand(2)}, *signature.attributes);
}

void reference_sgd(const ReferenceContext& context) {
  const double momentum = context.attributes->number("momentum"), decay = context.attributes->number("weight_decay");
  const double lr = context.operand(3).data.at(0), scale = context.operand(4).data.at(0);
  for (size_t i = 0; i < context.operand(0).data.size(); ++i) {
    const double w = context.operand(0).data[i];
    const double b = momentum * context.operand(2).data[i] + (context.operand(1).data[i] * scale + decay * w);
    context.result(0).data[i] = w - lr * b;
    context.result(1).data[i] = b;
  }
  reference_copy(context, 2);
}

std::vector<Tensor> decompose_sgd(const std::vector<Tensor>& operands, const Attributes& a) {
  const Tensor weight = operands[0];
  const Tensor g = operands[1] * operands[4] + weight * a.number("weight_decay");
  const Tensor b = operands[2] * a.number("momentum") + g;
  return with_copy({weight - b * operands[3], b}, a);
}

const std::array<OpDef, 3> kDefs{
    OpDef{.name = "sum_of_squares",
          .doc = "The sum of the squares of all elements of all operands, in FP32 (the square of the global norm).",
          .infer = infer_squares,
          .role = role_squares,
          .cost = cost_squares,
          .reference = reference_squares,
          .decompose = decompose_squares},
    OpDef{.name = "adamw",
          .doc =
              "AdamW (Loshchilov and Hutter 2017) in torch's arithmetic: g = scale gradient; w = w (1 - lr decay); m = m + (1 - beta1) "
              "(g - m); "
              "v = beta2 v + (1 - beta2) g g; w = w - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps). With copy=\"bf16\" also w in that dtype.",
          .num_operands = 8,
          .infer = infer_adamw,
          .cost = cost_update<15>,
          .reference = reference_adamw,
          .decompose = decompose_adamw,
          .in_place = {0, 2, 3, -1}},
    OpDef{.name = "sgd",
          .doc = "SGD in torch's arithmetic: g = scale gradient + decay w; b = momentum b + g; w = w - lr b. With copy=\"bf16\" also w in "
                 "that dtype.",
          .num_operands = 5,
          .infer = infer_sgd,
          .cost = cost_update<7>,
          .reference = reference_sgd,
          .decompose = decompose_sgd,
          .in_place = {0, 2, -1, -1}},
};

}  // namespace

std::span<const OpDef> optimizer_update_ops() { return kDefs; }

Tensor sum_of_squares(std::vector<Tensor> values, Source source) { return values.at(0).builder->append1(kDefs[0], values, {}, source); }

AdamWResult adamw(Tensor weight, Tensor gradient, Tensor first_moment, Tensor second_moment, Tensor lr, Tensor gradient_scale,
                  Tensor correction1, Tensor correction2, double beta1, double beta2, double eps, double weight_decay,
                  std::optional<DType> copy, Source source) {
  const std::vector<Tensor> results =
      weight.builder->append(kDefs[1], {weight, gradient, first_moment, second_moment, lr, gradient_scale, correction1, correction2},
                             with_copy({{"beta1", beta1}, {"beta2", beta2}, {"eps", eps}, {"weight_decay", weight_decay}}, copy), source);
  return {results[0], results[1], results[2], copy ? results[3] : Tensor{}};
}

SgdResult sgd(Tensor weight, Tensor gradient, Tensor momentum_buffer, Tensor lr, Tensor gradient_scale, double momentum,
              double weight_decay, std::optional<DType> copy, Source source) {
  const std::vector<Tensor> results =
      weight.builder->append(kDefs[2], {weight, gradient, momentum_buffer, lr, gradient_scale},
                             with_copy({{"momentum", momentum}, {"weight_decay", weight_decay}}, copy), source);
  return {results[0], results[1], copy ? results[2] : Tensor{}};
}

}  // namespace mw
