// dot: y[M.., N..] = sum_K a[B.., M.., K..] b[B.., N.., K..], with every group of dims named.
#include "ops/dot.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<Type> infer(const Signature& signature) {
  const bool accumulates = signature.attributes->flag_or("accumulate", false);
  const size_t expected = accumulates ? 3 : 2;
  if (signature.operands.size() != expected)
    throw UserError("it has " + std::to_string(signature.operands.size()) + " operands; expected " + std::to_string(expected));
  const Type &a = signature.operand(0), &b = signature.operand(1);
  const std::vector<std::string> contract = signature.attributes->names("contract");
  if (a.dtype != b.dtype || !is_float(a.dtype))
    throw UserError("operands " + to_string(a) + " and " + to_string(b) + ": dot wants one float dtype; cast one of them");
  for (const std::string& name : contract) {
    if (!a.has(name) || !b.has(name)) {
      throw UserError("contracted dim '" + name + "' is not in " + to_string(a.has(name) ? b : a) +
                      did_you_mean(name, (a.has(name) ? b : a).dim_names()));
    }
  }
  for (const Dim& dim : a.dims) {
    if (b.has(dim.name) && b.size_of(dim.name) != dim.size)
      throw UserError("operands " + to_string(a) + " and " + to_string(b) + ": dim '" + dim.name + "' has two sizes");
  }
  Type result{a.dtype, without(a, contract)};
  if (const std::string dtype = signature.attributes->text_or("dtype", ""); !dtype.empty()) result.dtype = parse_dtype(dtype);
  for (const Dim& dim : b.dims) {
    if (!a.has(dim.name)) result.dims.push_back(dim);
  }
  if (accumulates && signature.operand(2) != result) {
    throw UserError("the accumulator is " + to_string(signature.operand(2)) + " but the product " + to_string(result));
  }
  return {result};
}

DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = contains(signature.attributes->names("contract"), dim) ? DimUse::kContracted : DimUse::kMapped};
}

// d a = dot(g, b) over the dims that b alone brought; likewise for b.
void gradient(GradientContext& context) {
  const Tensor g = *context.upstream[0];
  for (const size_t i : {size_t{0}, size_t{1}}) {
    if (!context.needed[i]) continue;
    const Tensor self = context.operands[i], other = context.operands[1 - i];
    std::vector<std::string> contract;
    for (const Dim& dim : g.type().dims) {
      if (!self.has(dim.name)) contract.push_back(dim.name);
    }
    const Tensor upstream = cast(g, other.dtype());
    context.gradients[i] = reorder(dot(upstream, other, contract, context.gradient_dtype(i)), self.type().dim_names());
  }
}

Cost cost(const Signature& signature) {
  double flops = 2.0 * static_cast<double>(signature.result(0).elements());
  for (const std::string& name : signature.attributes->names("contract")) flops *= static_cast<double>(signature.operand(0).size_of(name));
  Cost cost = default_cost(signature);
  cost.flops = flops;
  return cost;
}

void reference(const ReferenceContext& context) {
  const HostArray &a = context.operand(0), &b = context.operand(1);
  HostArray& y = context.result(0);
  if (context.operands.size() > 2) y.data = context.operand(2).data;
  std::vector<Dim> loops = y.type.dims;
  for (const std::string& name : context.attributes->names("contract")) loops.push_back({name, a.type.size_of(name)});
  LoopNest(loops, {&a.type, &b.type, &y.type}).run([&](int64_t, const int64_t* at) {
    y.data[static_cast<size_t>(at[2])] += a.data[static_cast<size_t>(at[0])] * b.data[static_cast<size_t>(at[1])];
  });
}

const std::array<OpDef, 1> kDefs{OpDef{.name = "dot",
                                       .doc = "y = sum over the contracted dims of a * b; dims in both operands that are not contracted "
                                              "are batch dims. With `accumulate`, a third operand is added, which the "
                                              "result may overwrite.",
                                       .infer = infer,
                                       .role = role,
                                       .gradient = gradient,
                                       .cost = cost,
                                       .reference = reference,
                                       .in_place = {2, -1, -1, -1}}};

}  // namespace

std::span<const OpDef> dot_ops() { return kDefs; }

Tensor dot(Tensor a, Tensor b, std::vector<std::string> contract, std::optional<DType> dtype, Source source) {
  Attributes attributes{{"contract", std::move(contract)}};
  if (dtype && *dtype != a.dtype()) attributes.set("dtype", std::string(dtype_name(*dtype)));
  return a.builder->append1(kDefs[0], {a, b}, std::move(attributes), source);
}

}  // namespace mw
