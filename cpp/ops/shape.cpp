// reorder, broadcast_to and iota: values in another memory order, repeated, or counted.
#include "ops/shape.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"

namespace mw {
namespace {

bool always_linear(const Signature&) { return true; }

Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }

void copy_by_name(const ReferenceContext& context) {
  HostArray& y = context.result(0);
  LoopNest(y.type.dims, {&context.operand(0).type}).run([&](int64_t i, const int64_t* at) {
    y.data[static_cast<size_t>(i)] = context.operand(0).data[static_cast<size_t>(at[0])];
  });
}

// ---- reorder {order} ----

std::vector<Type> infer_reorder(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::vector<std::string> order = signature.attributes->names("order");
  Type result{x.dtype, {}};
  for (const std::string& name : order) result.dims.push_back({name, x.size_of(name)});
  check_dims(result.dims);
  if (result.rank() != x.rank())
    throw UserError("the order names " + std::to_string(order.size()) + " of the " + std::to_string(x.rank()) + " dims of " + to_string(x));
  return {result};
}

void gradient_reorder(GradientContext& context) {
  context.gradients[0] = cast(reorder(*context.upstream[0], context.operands[0].type().dim_names()), context.gradient_dtype(0));
}

// ---- broadcast_to {type} ----

std::vector<Type> infer_broadcast(const Signature& signature) {
  const Type& x = signature.operand(0);
  Type result = parse_type(signature.attributes->text("type"));
  if (result.dtype != x.dtype) throw UserError(to_string(x) + " cannot be repeated as " + to_string(result) + ": the dtypes differ");
  for (const Dim& dim : x.dims) {
    if (!result.has(dim.name) || result.size_of(dim.name) != dim.size) {
      throw UserError(to_string(x) + " cannot be repeated as " + to_string(result) + ": the result wants " + dim.name + "=" +
                      std::to_string(dim.size));
    }
  }
  return {result};
}

void gradient_broadcast(GradientContext& context) {
  context.gradients[0] = sum_to(*context.upstream[0], context.operands[0].type(), context.gradient_dtype(0));
}

// ---- iota {type} ----

std::vector<Type> infer_iota(const Signature& signature) {
  const Type result = parse_type(signature.attributes->text("type"));
  if (result.dtype != DType::kI32 || result.rank() != 1) throw UserError("iota gives i32 of one dim, not " + to_string(result));
  return {result};
}

DimRole role_iota(const Signature&, std::string_view) { return {.use = DimUse::kMapped, .needs_offset = true}; }

void reference_iota(const ReferenceContext& context) {
  const double offset = context.operands.empty() ? 0.0 : context.operand(0).data[0];
  std::vector<double>& y = context.result(0).data;
  for (size_t i = 0; i < y.size(); ++i) y[i] = offset + static_cast<double>(i);
}

constexpr std::array<OpDef, 3> kDefs{OpDef{.name = "reorder",
                                           .doc = "The same values with the dims in the memory order `order`",
                                           .num_operands = 1,
                                           .infer = infer_reorder,
                                           .gradient = gradient_reorder,
                                           .cost = moves_only,
                                           .reference = copy_by_name,
                                           .jointly_linear = always_linear},
                                     OpDef{.name = "broadcast_to",
                                           .doc = "x repeated along the dims of `type` that it lacks",
                                           .num_operands = 1,
                                           .infer = infer_broadcast,
                                           .gradient = gradient_broadcast,
                                           .cost = moves_only,
                                           .reference = copy_by_name,
                                           .jointly_linear = always_linear,
                                           .localize = localize_type},
                                     OpDef{.name = "iota",
                                           .doc = "0, 1, 2, ... along the one dim of `type`; a shard starts at its offset",
                                           .num_operands = 0,
                                           .infer = infer_iota,
                                           .role = role_iota,
                                           .reference = reference_iota,
                                           .localize = localize_type}};

}  // namespace

std::span<const OpDef> shape_ops() { return kDefs; }

Tensor reorder(Tensor x, std::vector<std::string> order, Source source) {
  if (x.type().dim_names() == order) return x;
  return x.builder->append1(kDefs[0], {x}, {{"order", std::move(order)}}, source);
}

Tensor copy(Tensor x, Source source) { return x.builder->append1(kDefs[0], {x}, {{"order", x.type().dim_names()}}, source); }

Tensor broadcast_to(Tensor x, Type type, Source source) {
  if (x.type() == type) return x;
  return x.builder->append1(kDefs[1], {x}, {{"type", to_string(type)}}, source);
}

Tensor iota(Builder& builder, Dim dim, Source source) {
  return builder.append1(kDefs[2], {}, {{"type", to_string(Type{DType::kI32, {std::move(dim)}})}}, source);
}

}  // namespace mw
