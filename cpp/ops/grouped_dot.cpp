// grouped_dot: y[r, N..] = sum_K x[r, K..] w[e(r), {N.., K..}]; grouped_dot_weights: w[e, {N.., K..}] = sum_{r: e(r) = e} x[r, K..] y[r,
// N..].
#include "ops/grouped_dot.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "ir/dim_names.h"
#include "ops/elementwise.h"
#include "ops/expect.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The dims behind the outermost, which has to be `outer`.
std::vector<Dim> inner_dims(std::string_view operand, const Type& type, std::string_view outer) {
  if (type.dims.empty() || type.dims[0].name != outer)
    throw UserError(std::string(operand) + " is " + to_string(type) + "; expected '" + std::string(outer) + "' as the outermost dim");
  return {type.dims.begin() + 1, type.dims.end()};
}

void check_row_experts(const Type& row_experts, const Type& x) {
  expect_dtype("row_experts", row_experts, DType::kI32);
  expect_same_dims("row_experts", row_experts, "one per row", {x.dims[0]});
}

void check_floats(std::string_view a_name, const Type& a, std::string_view b_name, const Type& b) {
  expect_float(a_name, a);
  expect_dtype(b_name, b, a.dtype);
}

size_t expert_of(const ReferenceContext& context, size_t row, int64_t experts) {
  const double expert = context.operand(2).data[row];
  if (expert < 0 || expert > static_cast<double>(experts) || (row > 0 && expert < context.operand(2).data[row - 1])) {
    throw UserError("row " + std::to_string(row) + " is of expert " + std::to_string(static_cast<int64_t>(expert)) +
                    "; expected ascending experts below " + std::to_string(experts) + ", or that for rows of none");
  }
  return static_cast<size_t>(expert);
}

bool expect_accumulator(const Signature& signature) {
  const bool accumulates = signature.attributes->flag_or("accumulate", false);
  if (signature.operands.size() != (accumulates ? 4 : 3))
    throw UserError("it has " + std::to_string(signature.operands.size()) + " operands; expected " + (accumulates ? "4" : "3"));
  return accumulates;
}

// ---- grouped_dot {contract[, accumulate]}: x, w, row_experts[, accumulator] ----

std::vector<Type> infer(const Signature& signature) {
  const bool accumulates = expect_accumulator(signature);
  const Type &x = signature.operand(0), &w = signature.operand(1);
  const std::vector<std::string> contract = signature.attributes->names("contract");
  check_floats("x", x, "w", w);
  const std::vector<Dim> of_x = inner_dims("x", x, kExpertRows), of_w = inner_dims("w", w, "experts");
  check_row_experts(signature.operand(2), x);
  for (const std::string& name : contract) {
    if (!x.has(name) || !w.has(name) || name == kExpertRows || name == "experts")
      throw UserError("contracted dim '" + name + "' is not in " + to_string(x.has(name) ? w : x) +
                      did_you_mean(name, (x.has(name) ? w : x).dim_names()));
    expect_same_size(name, "x", x, "w", w);
  }
  for (const Dim& dim : of_x) {
    if (!contains(contract, dim.name)) throw UserError("x is " + to_string(x) + "; expected all its dims but expert_rows to be contracted");
  }
  Type y{x.dtype, {x.dims[0]}};
  for (const Dim& dim : of_w) {
    if (!contains(contract, dim.name)) y.dims.push_back(dim);
  }
  check_dims(y.dims);
  if (accumulates && signature.operand(3) != y)
    throw UserError("the accumulator is " + to_string(signature.operand(3)) + " but the product " + to_string(y));
  return {y};
}

DimRole role(const Signature& signature, std::string_view dim) {
  if (dim == "experts") return {.use = DimUse::kWhole};
  return {.use = contains(signature.attributes->names("contract"), dim) ? DimUse::kContracted : DimUse::kMapped};
}

void gradient(GradientContext& context) {
  const Tensor x = context.operands[0], w = context.operands[1], row_experts = context.operands[2];
  const Tensor g = cast(*context.upstream[0], x.dtype());
  if (context.needed[0]) {
    std::vector<std::string> contract = g.type().dim_names();
    contract.erase(contract.begin());
    const Tensor dx = reorder(grouped_dot(g, w, row_experts, contract), x.type().dim_names());
    context.gradients[0] = cast(dx, context.gradient_dtype(0));
  }
  if (context.needed[1]) context.gradients[1] = grouped_dot_weights(x, g, row_experts, w.type().with_dtype(context.gradient_dtype(1)));
}

// `filled`: the part of the rows that belong to an expert on average; the others are room.
double flops(const Signature& signature, const Type& other) {
  const Type& x = signature.operand(0);
  return 2.0 * signature.attributes->number_or("filled", 1.0) * static_cast<double>(x.elements()) * static_cast<double>(other.elements()) /
         std::max(1.0, static_cast<double>(x.dims[0].size));
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = flops(signature, signature.result(0));
  return cost;
}

// Loops over `dims` with the outermost dim of each array fixed: body(offsets).
template <typename Body>
void each_inner(const std::vector<Dim>& dims, const std::vector<const Type*>& arrays, Body&& body) {
  std::vector<Type> inner;
  std::vector<const Type*> pointers;
  for (const Type* type : arrays) inner.push_back({type->dtype, {type->dims.begin() + 1, type->dims.end()}});
  for (const Type& type : inner) pointers.push_back(&type);
  LoopNest(dims, pointers).run([&](int64_t, const int64_t* at) { body(at); });
}

size_t inner_elements(const Type& type) { return static_cast<size_t>(type.elements() / std::max<int64_t>(1, type.dims[0].size)); }

void reference(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &w = context.operand(1);
  HostArray& y = context.result(0);
  if (context.operands.size() > 3) y.data = context.operand(3).data;
  std::vector<Dim> loops(y.type.dims.begin() + 1, y.type.dims.end());
  loops.insert(loops.end(), x.type.dims.begin() + 1, x.type.dims.end());
  for (size_t row = 0; row < context.operand(2).data.size(); ++row) {
    const size_t expert = expert_of(context, row, w.type.dims[0].size);
    if (expert == static_cast<size_t>(w.type.dims[0].size)) continue;
    const size_t x_at = row * inner_elements(x.type), w_at = expert * inner_elements(w.type), y_at = row * inner_elements(y.type);
    each_inner(loops, {&x.type, &w.type, &y.type}, [&](const int64_t* at) {
      y.data[y_at + static_cast<size_t>(at[2])] += x.data[x_at + static_cast<size_t>(at[0])] * w.data[w_at + static_cast<size_t>(at[1])];
    });
  }
}

// ---- grouped_dot_weights {type[, accumulate]}: x, dy, row_experts[, accumulator] ----

std::vector<Type> infer_weights(const Signature& signature) {
  const bool accumulates = expect_accumulator(signature);
  const Type &x = signature.operand(0), &dy = signature.operand(1);
  const Type type = parse_type(signature.attributes->text("type"));
  check_floats("x", x, "dy", dy);
  expect_float("the weights", type);
  std::vector<Dim> brought = inner_dims("x", x, kExpertRows);
  for (const Dim& dim : inner_dims("dy", dy, kExpertRows)) brought.push_back(dim);
  check_dims(brought);  // no dim is in both
  expect_same_size(kExpertRows, "x", x, "dy", dy);
  check_row_experts(signature.operand(2), x);
  const std::vector<Dim> inner = inner_dims("the weights", type, "experts");
  const bool same = inner.size() == brought.size() && std::is_permutation(inner.begin(), inner.end(), brought.begin());
  if (!same) {
    throw UserError("x " + to_string(x) + " and dy " + to_string(dy) + " do not make weights " + to_string(type) +
                    "; expected 'experts' and " + to_string(Type{type.dtype, brought}) + " in any order");
  }
  if (accumulates && signature.operand(3) != type)
    throw UserError("the accumulator is " + to_string(signature.operand(3)) + " but the weights " + to_string(type));
  return {type};
}

DimRole role_weights(const Signature&, std::string_view dim) {
  if (dim == "experts") return {.use = DimUse::kWhole};
  return {.use = dim == kExpertRows ? DimUse::kContracted : DimUse::kMapped};
}

Cost cost_weights(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = flops(signature, signature.operand(1));
  return cost;
}

void reference_weights(const ReferenceContext& context) {
  const HostArray &x = context.operand(0), &dy = context.operand(1);
  HostArray& w = context.result(0);
  if (context.operands.size() > 3) w.data = context.operand(3).data;
  const std::vector<Dim> loops(w.type.dims.begin() + 1, w.type.dims.end());
  for (size_t row = 0; row < context.operand(2).data.size(); ++row) {
    const size_t expert = expert_of(context, row, w.type.dims[0].size);
    if (expert == static_cast<size_t>(w.type.dims[0].size)) continue;
    const size_t x_at = row * inner_elements(x.type), dy_at = row * inner_elements(dy.type), w_at = expert * inner_elements(w.type);
    each_inner(loops, {&x.type, &dy.type, &w.type}, [&](const int64_t* at) {
      w.data[w_at + static_cast<size_t>(at[2])] += x.data[x_at + static_cast<size_t>(at[0])] * dy.data[dy_at + static_cast<size_t>(at[1])];
    });
  }
}

const std::array<OpDef, 2> kDefs{
    OpDef{
        .name = "grouped_dot",
        .doc =
            "y[r] = x[r] times the weight of the expert of row r, summed over the contracted dims; rows are sorted by expert, and how many "
            "each has is known only at run time. Rows at the end whose expert is the number of experts are of none and give zeros. With "
            "`accumulate`, a fourth operand is added, which the result may overwrite.",
        .infer = infer,
        .role = role,
        .gradient = gradient,
        .cost = cost,
        .reference = reference,
        .in_place = {3, -1, -1, -1}},
    OpDef{.name = "grouped_dot_weights",
          .doc = "Of each expert the sum of x[r] dy[r] over its rows: the gradient of the weights of grouped_dot. With `accumulate`, a "
                 "fourth operand is added, which the result may overwrite.",
          .infer = infer_weights,
          .role = role_weights,
          .cost = cost_weights,
          .reference = reference_weights,
          .localize = localize_type,
          .in_place = {3, -1, -1, -1}}};

}  // namespace

std::span<const OpDef> grouped_dot_ops() { return kDefs; }

Tensor grouped_dot(Tensor x, Tensor w, Tensor row_experts, std::vector<std::string> contract, Source source) {
  return x.builder->append1(kDefs[0], {x, w, row_experts}, {{"contract", std::move(contract)}}, source);
}

Tensor grouped_dot_weights(Tensor x, Tensor dy, Tensor row_experts, const Type& type, Source source) {
  return x.builder->append1(kDefs[1], {x, dy, row_experts}, {{"type", to_string(type)}}, source);
}

}  // namespace mw
