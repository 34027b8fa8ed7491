// Reductions: y[kept dims] = combine over the named dims of x. One table row each for sum, max and min, and argmax.
#include "ops/reduce.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

bool reduces(const Signature& signature, std::string_view dim) {
  const std::vector<std::string> dims = signature.attributes->names("dims");
  return std::find(dims.begin(), dims.end(), dim) != dims.end();
}

std::vector<Type> infer(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::vector<std::string> dims = signature.attributes->names("dims");
  if (dims.empty()) throw UserError("no dim to reduce is named; " + to_string(x) + " has dims to choose from");
  for (size_t i = 0; i < dims.size(); ++i) {
    if (x.size_of(dims[i]) == 0) throw UserError("dim '" + dims[i] + "' of " + to_string(x) + " is empty: there is nothing to reduce");
    if (std::find(dims.begin(), dims.begin() + static_cast<int64_t>(i), dims[i]) != dims.begin() + static_cast<int64_t>(i)) {
      throw UserError("dim '" + dims[i] + "' is named twice");
    }
  }
  return {{x.dtype, without(x, dims)}};
}

std::vector<Type> infer_sum(const Signature& signature) {
  if (signature.operand(0).dtype == DType::kU8)
    throw UserError(to_string(signature.operand(0)) + " cannot hold a sum; cast it to i32 or f32 first");
  return infer(signature);
}

std::vector<Type> infer_argmax(const Signature& signature) { return {infer(signature)[0].with_dtype(DType::kI32)}; }

DimRole role_contracted(const Signature& signature, std::string_view dim) {
  return {.use = reduces(signature, dim) ? DimUse::kContracted : DimUse::kMapped};
}
DimRole role_whole(const Signature& signature, std::string_view dim) {
  return {.use = reduces(signature, dim) ? DimUse::kWhole : DimUse::kMapped};
}

PartialKind partial_max(const Signature&, std::string_view, size_t) { return PartialKind::kMax; }
bool always_linear(const Signature&) { return true; }

void gradient_sum(GradientContext& context) {
  const DType dtype = context.gradient_dtype(0);
  context.gradients[0] = broadcast_to(cast(*context.upstream[0], dtype), context.operands[0].type().with_dtype(dtype));
}

// The elements that attain the extreme share the gradient equally: the mean of the one-sided choices, and right on shards.
void gradient_extreme(GradientContext& context) {
  const Tensor x = context.operands[0], y = context.results[0], g = *context.upstream[0];
  const DType dtype = context.gradient_dtype(0);
  const Tensor attains = cast(binary("eq", x, y), DType::kF32);
  const Tensor share = cast(g, DType::kF32) / reduce_sum(attains, context.attributes().names("dims"));
  context.gradients[0] = cast(attains * share, dtype);
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = static_cast<double>(signature.operand(0).elements());
  return cost;
}

// Visits every element of x with the place of its result.
template <typename Body>
void each_element(const ReferenceContext& context, Body&& body) {
  const HostArray& x = context.operand(0);
  LoopNest(x.type.dims, {&context.result(0).type}).run([&](int64_t i, const int64_t* at) {
    body(static_cast<size_t>(i), static_cast<size_t>(at[0]));
  });
}

void reference_sum(const ReferenceContext& context) {
  each_element(context, [&](size_t i, size_t r) { context.result(0).data[r] += context.operand(0).data[i]; });
}

template <int sign>
void reference_extreme(const ReferenceContext& context) {
  std::vector<double>& y = context.result(0).data;
  std::fill(y.begin(), y.end(), -sign * INFINITY);
  each_element(context, [&](size_t i, size_t r) {
    const double x = context.operand(0).data[i];
    if (std::isnan(x) || sign * x > sign * y[r]) y[r] = x;
  });
}

void reference_argmax(const ReferenceContext& context) {
  const HostArray& x = context.operand(0);
  HostArray& y = context.result(0);
  const std::string dim = context.attributes->names("dims").at(0);
  const int64_t size = x.type.size_of(dim), step = x.type.strides()[static_cast<size_t>(x.type.index_of(dim))];
  LoopNest(y.type.dims, {&x.type}).run([&](int64_t i, const int64_t* at) {
    const auto element = [&](int64_t k) { return x.data[static_cast<size_t>(at[0] + k * step)]; };
    int64_t best = 0;
    for (int64_t k = 1; k < size; ++k) {
      if (element(k) > element(best) || (std::isnan(element(k)) && !std::isnan(element(best)))) best = k;
    }
    y.data[static_cast<size_t>(i)] = static_cast<double>(best);
  });
}

constexpr std::array<OpDef, 4> kDefs{
    OpDef{.name = "reduce_sum",
          .doc = "y = sum of x over `dims`, formed in FP32 or better",
          .num_operands = 1,
          .infer = infer_sum,
          .role = role_contracted,
          .gradient = gradient_sum,
          .cost = cost,
          .reference = reference_sum,
          .jointly_linear = always_linear},
    OpDef{.name = "reduce_max",
          .doc = "y = max of x over `dims`; elements that attain it share the gradient equally",
          .num_operands = 1,
          .infer = infer,
          .role = role_contracted,
          .partial = partial_max,
          .gradient = gradient_extreme,
          .cost = cost,
          .reference = reference_extreme<1>},
    OpDef{.name = "reduce_min",
          .doc = "y = min of x over `dims`; elements that attain it share the gradient equally",
          .num_operands = 1,
          .infer = infer,
          .role = role_whole,
          .gradient = gradient_extreme,
          .cost = cost,
          .reference = reference_extreme<-1>},
    OpDef{.name = "argmax",
          .doc = "Index of the largest element along the one dim of `dims`, the lowest at a tie (a NaN is larger than all)",
          .num_operands = 1,
          .infer = infer_argmax,
          .role = role_whole,
          .cost = cost,
          .reference = reference_argmax}};

}  // namespace

std::span<const OpDef> reduce_ops() { return kDefs; }

Tensor reduce_sum(Tensor x, std::vector<std::string> dims, Source source) {
  return x.builder->append1(kDefs[0], {x}, {{"dims", std::move(dims)}}, source);
}
Tensor reduce_max(Tensor x, std::vector<std::string> dims, Source source) {
  return x.builder->append1(kDefs[1], {x}, {{"dims", std::move(dims)}}, source);
}
Tensor reduce_min(Tensor x, std::vector<std::string> dims, Source source) {
  return x.builder->append1(kDefs[2], {x}, {{"dims", std::move(dims)}}, source);
}
Tensor argmax(Tensor x, std::string dim, Source source) {
  return x.builder->append1(kDefs[3], {x}, {{"dims", std::vector<std::string>{std::move(dim)}}}, source);
}

Tensor reduce_mean(Tensor x, std::vector<std::string> dims, Source source) {
  const Tensor sum = reduce_sum(x, dims, source);
  double count = 1;
  for (const std::string& dim : dims) count *= static_cast<double>(x.size(dim));
  return binary("mul", sum, constant(*x.builder, 1.0 / count, source), source);
}

}  // namespace mw
