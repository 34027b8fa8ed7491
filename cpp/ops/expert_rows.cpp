// to_expert_rows, from_expert_rows, expert_of_rows: y[row(t, k), o] = w[t, k] x[t, o], where row() sorts all choices by expert.
#include "ops/expert_rows.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "ops/combine.h"
#include "ops/elementwise.h"
#include "ops/expert_order.h"
#include "ops/op_list.h"

namespace mw {
namespace {

int64_t experts_of(const Attributes& attributes) {
  const int64_t experts = attributes.integer("experts");
  if (experts < 1) throw UserError("experts is " + std::to_string(experts) + "; expected at least 1");
  return experts;
}

template <size_t indices>
DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = use_of_rows(signature.operand(indices), dim, DimUse::kMapped)};
}
template <size_t indices>
std::vector<std::string> carries(const Signature& signature, std::string_view dim) {
  return carried_by_rows(signature.operand(indices), dim);
}

Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }

// Visits the rows in the order of the choices: body(choice, row).
template <typename Body>
void each_choice(const ReferenceContext& context, size_t indices, Body&& body) {
  const std::vector<size_t> rows = row_of_choices(context.operand(indices), context.attributes->integer("experts"));
  for (size_t choice = 0; choice < rows.size(); ++choice) body(choice, rows[choice]);
}

// ---- to_expert_rows {experts}: x, indices[, weights] ----

std::vector<Type> infer_to(const Signature& signature) {
  const Type &x = signature.operand(0), &indices = signature.operand(1);
  experts_of(*signature.attributes);
  Type rows{x.dtype, {expert_rows_dim(indices)}};
  for (const Dim& dim : dims_of_tokens("x", x, indices)) rows.dims.push_back(dim);
  if (signature.operands.size() > 3) throw UserError("to_expert_rows takes x, indices and at most weights");
  if (signature.operands.size() == 3) {
    expect_choice_weights(signature.operand(2), indices);
    if (x.has("top_k") || !is_float(x.dtype)) throw UserError("x is " + to_string(x) + "; weights go with float tokens without 'top_k'");
  }
  check_dims(rows.dims);
  return {rows};
}

void gradient_to(GradientContext& context) {
  const Tensor x = context.operands[0], indices = context.operands[1];
  const int64_t experts = context.attributes().integer("experts");
  const std::optional<Tensor> weights = context.operands.size() > 2 ? std::optional(context.operands[2]) : std::nullopt;
  const Tensor g = cast(*context.upstream[0], x.dtype());
  if (context.needed[0]) {
    const Tensor dx = x.has("top_k") ? from_expert_rows(g, indices, experts) : combine(g, weights, indices, experts);
    context.gradients[0] = cast(dx, context.gradient_dtype(0));
  }
  if (weights && context.needed[2]) context.gradients[2] = expert_row_products(g, x, indices, experts);
}

void reference_to(const ReferenceContext& context) {
  const HostArray& x = context.operand(0);
  HostArray& rows = context.result(0);
  const size_t choices = static_cast<size_t>(context.operand(1).type.elements());
  if (choices == 0) return;
  const size_t width = rows.data.size() / choices,
               per_token = x.type.has("top_k") ? 1 : static_cast<size_t>(context.operand(1).type.dims.back().size);
  each_choice(context, 1, [&](size_t choice, size_t row) {
    const double weight = context.operands.size() > 2 ? context.operand(2).data[choice] : 1.0;
    for (size_t i = 0; i < width; ++i) rows.data[row * width + i] = weight * x.data[choice / per_token * width + i];
  });
}

// ---- from_expert_rows {experts}: rows, indices ----

std::vector<Type> infer_from(const Signature& signature) {
  const Type &rows = signature.operand(0), &indices = signature.operand(1);
  experts_of(*signature.attributes);
  token_dims(indices);
  Type y{rows.dtype, indices.dims};
  for (const Dim& dim : dims_of_rows("rows", rows, indices)) y.dims.push_back(dim);
  check_dims(y.dims);
  return {y};
}

void gradient_from(GradientContext& context) {
  const Tensor g = to_expert_rows(*context.upstream[0], context.operands[1], context.attributes().integer("experts"));
  context.gradients[0] = cast(g, context.gradient_dtype(0));
}

bool linear_in_first(const Signature&, size_t operand) { return operand == 0; }

void reference_from(const ReferenceContext& context) {
  const HostArray& rows = context.operand(0);
  const size_t choices = static_cast<size_t>(context.operand(1).type.elements());
  if (choices == 0) return;
  const size_t width = rows.data.size() / choices;
  each_choice(context, 1, [&](size_t choice, size_t row) {
    std::copy_n(rows.data.begin() + static_cast<int64_t>(row * width), width,
                context.result(0).data.begin() + static_cast<int64_t>(choice * width));
  });
}

// ---- expert_of_rows {experts}: indices ----

std::vector<Type> infer_experts(const Signature& signature) {
  const Type& indices = signature.operand(0);
  experts_of(*signature.attributes);
  token_dims(indices);
  return {{DType::kI32, {expert_rows_dim(indices)}}};
}

void reference_experts(const ReferenceContext& context) {
  each_choice(context, 0, [&](size_t choice, size_t row) { context.result(0).data[row] = context.operand(0).data[choice]; });
}

const std::array<OpDef, 3> kDefs{
    OpDef{.name = "to_expert_rows",
          .doc = "Each token (times its weight) once per choice, sorted by expert, then by token; x with top_k: each choice's own row",
          .infer = infer_to,
          .role = role<1>,
          .carries = carries<1>,
          .gradient = gradient_to,
          .cost = moves_only,
          .reference = reference_to},
    OpDef{.name = "from_expert_rows",
          .doc = "Rows that are sorted by expert, each at the place of its choice",
          .num_operands = 2,
          .infer = infer_from,
          .role = role<1>,
          .carries = carries<1>,
          .gradient = gradient_from,
          .cost = moves_only,
          .reference = reference_from,
          .linear_in = linear_in_first},
    OpDef{.name = "expert_of_rows",
          .doc = "The expert of each row, ascending",
          .num_operands = 1,
          .infer = infer_experts,
          .role = role<0>,
          .carries = carries<0>,
          .cost = moves_only,
          .reference = reference_experts}};

}  // namespace

std::span<const OpDef> expert_rows_ops() { return kDefs; }

Tensor to_expert_rows(Tensor x, Tensor indices, int64_t experts, std::optional<Tensor> weights, Source source) {
  std::vector<Tensor> operands{x, indices};
  if (weights) operands.push_back(*weights);
  return x.builder->append1(kDefs[0], operands, {{"experts", experts}}, source);
}

Tensor from_expert_rows(Tensor rows, Tensor indices, int64_t experts, Source source) {
  return rows.builder->append1(kDefs[1], {rows, indices}, {{"experts", experts}}, source);
}

Tensor expert_of_rows(Tensor indices, int64_t experts, Source source) {
  return indices.builder->append1(kDefs[2], {indices}, {{"experts", experts}}, source);
}

}  // namespace mw
