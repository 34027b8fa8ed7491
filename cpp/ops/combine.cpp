// combine: y[t, o] = sum_k w[t, k] rows[row(t, k), o]; expert_row_products: p[t, k] = sum_o rows[row(t, k), o] x[t, o].
#include "ops/combine.h"

#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/expert_order.h"
#include "ops/expert_rows.h"
#include "ops/op_list.h"

namespace mw {
namespace {

std::vector<std::string> carries(const Signature& signature, std::string_view dim) { return carried_by_rows(signature.operand(1), dim); }
bool linear_in_rows(const Signature&, size_t operand) { return operand == 0; }

// ---- combine {experts}: rows, indices[, weights] ----

std::vector<Type> infer_combine(const Signature& signature) {
  const Type &rows = signature.operand(0), &indices = signature.operand(1);
  expect_float("rows", rows);
  Type y{rows.dtype, token_dims(indices)};
  for (const Dim& dim : dims_of_rows("rows", rows, indices)) y.dims.push_back(dim);
  if (signature.operands.size() > 3) throw UserError("combine takes rows, indices and at most weights");
  if (signature.operands.size() == 3) expect_choice_weights(signature.operand(2), indices);
  check_dims(y.dims);
  return {y};
}

DimRole role_combine(const Signature& signature, std::string_view dim) {
  return {.use = use_of_rows(signature.operand(1), dim, DimUse::kMapped)};
}

void gradient_combine(GradientContext& context) {
  const Tensor rows = context.operands[0], indices = context.operands[1];
  const int64_t experts = context.attributes().integer("experts");
  const std::optional<Tensor> weights = context.operands.size() > 2 ? std::optional(context.operands[2]) : std::nullopt;
  const Tensor g = cast(*context.upstream[0], rows.dtype());
  if (context.needed[0]) context.gradients[0] = cast(to_expert_rows(g, indices, experts, weights), context.gradient_dtype(0));
  if (weights && context.needed[2]) context.gradients[2] = expert_row_products(rows, g, indices, experts);
}

void reference_combine(const ReferenceContext& context) {
  const HostArray &rows = context.operand(0), &indices = context.operand(1);
  const std::vector<size_t> row_of = row_of_choices(indices, context.attributes->integer("experts"));
  if (row_of.empty()) return;
  const size_t width = rows.data.size() / row_of.size(), k = static_cast<size_t>(indices.type.dims.back().size);
  for (size_t choice = 0; choice < row_of.size(); ++choice) {
    const double weight = context.operands.size() > 2 ? context.operand(2).data[choice] : 1.0;
    for (size_t i = 0; i < width; ++i) context.result(0).data[choice / k * width + i] += weight * rows.data[row_of[choice] * width + i];
  }
}

// ---- expert_row_products {experts}: rows, indices, x ----

std::vector<Type> infer_products(const Signature& signature) {
  const Type &rows = signature.operand(0), &indices = signature.operand(1), &x = signature.operand(2);
  expect_float("rows", rows);
  expect_dtype("x", x, rows.dtype);
  if (x.has("top_k")) throw UserError("x is " + to_string(x) + "; expected tokens, without 'top_k'");
  expect_same_dims("a row", Type{rows.dtype, dims_of_rows("rows", rows, indices)}, "a token", dims_of_tokens("x", x, indices));
  return {indices.with_dtype(DType::kF32)};
}

DimRole role_products(const Signature& signature, std::string_view dim) {
  return {.use = use_of_rows(signature.operand(1), dim, DimUse::kContracted)};
}

void reference_products(const ReferenceContext& context) {
  const HostArray &rows = context.operand(0), &indices = context.operand(1), &x = context.operand(2);
  const std::vector<size_t> row_of = row_of_choices(indices, context.attributes->integer("experts"));
  if (row_of.empty()) return;
  const size_t width = rows.data.size() / row_of.size(), k = static_cast<size_t>(indices.type.dims.back().size);
  for (size_t choice = 0; choice < row_of.size(); ++choice) {
    for (size_t i = 0; i < width; ++i)
      context.result(0).data[choice] += rows.data[row_of[choice] * width + i] * x.data[choice / k * width + i];
  }
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = 2 * static_cast<double>(signature.operand(0).elements());
  return cost;
}

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "combine",
          .doc = "y = sum over each token's choices of (its weight times) its row, in the order of the choices, formed in FP32 or better",
          .infer = infer_combine,
          .role = role_combine,
          .carries = carries,
          .gradient = gradient_combine,
          .cost = cost,
          .reference = reference_combine,
          .linear_in = linear_in_rows},
    OpDef{.name = "expert_row_products",
          .doc = "Of each choice the inner product of its row and its token in x: the gradient of the weights of combine",
          .num_operands = 3,
          .infer = infer_products,
          .role = role_products,
          .carries = carries,
          .cost = cost,
          .reference = reference_products,
          .linear_in = linear_in_rows}};

}  // namespace

std::span<const OpDef> combine_ops() { return kDefs; }

Tensor combine(Tensor rows, std::optional<Tensor> weights, Tensor indices, int64_t experts, Source source) {
  std::vector<Tensor> operands{rows, indices};
  if (weights) operands.push_back(*weights);
  return rows.builder->append1(kDefs[0], operands, {{"experts", experts}}, source);
}

Tensor expert_row_products(Tensor rows, Tensor x, Tensor indices, int64_t experts, Source source) {
  return rows.builder->append1(kDefs[1], {rows, indices, x}, {{"experts", experts}}, source);
}

}  // namespace mw
