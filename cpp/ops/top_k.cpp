// top_k: the k largest along one dim, sorted, and where they stand.
#include "ops/top_k.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/gather.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"

namespace mw {
namespace {

std::vector<Type> infer(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::string dim = signature.attributes->text("dim");
  const int64_t k = signature.attributes->integer("k"), size = x.size_of(dim);
  if (k < 1 || k > size)
    throw UserError("k = " + std::to_string(k) + " of dim '" + dim + "' of " + to_string(x) + "; expected 1 to " + std::to_string(size));
  Type values = x;
  values.dims[static_cast<size_t>(x.index_of(dim))] = {signature.attributes->text("into"), k};
  return {values, values.with_dtype(DType::kI32)};
}

DimRole role(const Signature& signature, std::string_view dim) {
  const bool ranked = dim == signature.attributes->text("dim") || dim == signature.attributes->text("into");
  return {.use = ranked ? DimUse::kWhole : DimUse::kMapped};
}

// The choice is constant in a neighbourhood of x: the gradient of each value goes to the element it came from.
void gradient(GradientContext& context) {
  if (!context.upstream[0]) return;
  const Type table = context.operands[0].type().with_dtype(context.gradient_dtype(0));
  context.gradients[0] = scatter_rows(*context.upstream[0], context.results[1], context.attributes().text("dim"), table);
}

void reference(const ReferenceContext& context) {
  const HostArray& x = context.operand(0);
  HostArray &values = context.result(0), &indices = context.result(1);
  const std::string dim = context.attributes->text("dim"), into = context.attributes->text("into");
  const int64_t size = x.type.size_of(dim), k = context.attributes->integer("k");
  const int64_t step = x.type.strides()[static_cast<size_t>(x.type.index_of(dim))];
  const int64_t step_out = values.type.strides()[static_cast<size_t>(values.type.index_of(into))];
  LoopNest(without(x.type, {dim}), {&x.type, &values.type}).run([&](int64_t, const int64_t* at) {
    const auto element = [&](int64_t i) { return x.data[static_cast<size_t>(at[0] + i * step)]; };
    std::vector<int64_t> order(static_cast<size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return element(a) > element(b) || (std::isnan(element(a)) && !std::isnan(element(b))); });
    for (int64_t i = 0; i < k; ++i) {
      values.data[static_cast<size_t>(at[1] + i * step_out)] = element(order[static_cast<size_t>(i)]);
      indices.data[static_cast<size_t>(at[1] + i * step_out)] = static_cast<double>(order[static_cast<size_t>(i)]);
    }
  });
}

constexpr std::array<OpDef, 1> kDefs{OpDef{
    .name = "top_k",
    .doc =
        "The k largest elements along `dim`, largest first, the lowest index first at a tie (a NaN is larger than all); and their indices",
    .num_operands = 1,
    .infer = infer,
    .role = role,
    .gradient = gradient,
    .reference = reference}};

}  // namespace

std::span<const OpDef> top_k_ops() { return kDefs; }

std::pair<Tensor, Tensor> top_k(Tensor x, std::string dim, Dim into, Source source) {
  const std::vector<Tensor> results =
      x.builder->append(kDefs[0], {x}, {{"dim", std::move(dim)}, {"into", into.name}, {"k", into.size}}, source);
  return {results[0], results[1]};
}

}  // namespace mw
