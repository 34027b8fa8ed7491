// rename, split and merge: the same bytes under other dims. The result is a view; no backend moves anything.
#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

bool always_linear(const Signature&) { return true; }
Cost free_of_cost(const Signature&) { return {}; }
void copy(const ReferenceContext& context) { context.result(0).data = context.operand(0).data; }

// `x` with the dims [at, at + count) replaced.
Type replaced(const Type& x, size_t at, size_t count, const std::vector<Dim>& by) {
  Type result{x.dtype, {x.dims.begin(), x.dims.begin() + static_cast<int64_t>(at)}};
  result.dims.insert(result.dims.end(), by.begin(), by.end());
  result.dims.insert(result.dims.end(), x.dims.begin() + static_cast<int64_t>(at + count), x.dims.end());
  check_dims(result.dims);
  return result;
}

size_t place_of(const Type& x, const std::string& dim) {
  x.size_of(dim);  // UserError when absent
  return static_cast<size_t>(x.index_of(dim));
}

// ---- rename {from, to} ----

std::vector<Type> infer_rename(const Signature& signature) {
  const Type& x = signature.operand(0);
  const size_t at = place_of(x, signature.attributes->text("from"));
  return {replaced(x, at, 1, {{signature.attributes->text("to"), x.dims[at].size}})};
}

void gradient_rename(GradientContext& context) {
  context.gradients[0] =
      cast(rename(*context.upstream[0], context.attributes().text("to"), context.attributes().text("from")), context.gradient_dtype(0));
}

// ---- split {dim, into, inner}: `inner` holds the sizes of `into` but the first, which follows ----

// Only the outermost is sharded, which is no inner one unless those before it have size 1.
void localize_split(Attributes& attributes, const std::function<int64_t(std::string_view dim)>& shards) {
  const std::vector<std::string> into = attributes.names("into");
  std::vector<int64_t> inner = attributes.integers("inner");
  for (size_t i = 0; i < inner.size(); ++i) inner[i] /= shards(into[i + 1]);
  attributes.set("inner", std::move(inner));
}

std::vector<Type> infer_split(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::string dim = signature.attributes->text("dim");
  const std::vector<std::string> into = signature.attributes->names("into");
  const std::vector<int64_t> inner = signature.attributes->integers("inner");
  if (into.empty() || inner.size() + 1 != into.size())
    throw UserError("split of '" + dim + "' wants one size for each of its new dims but the first");
  const size_t at = place_of(x, dim);
  int64_t rest = x.dims[at].size;
  std::vector<Dim> dims{{into[0], 0}};
  for (size_t i = 0; i < inner.size(); ++i) {
    if (inner[i] <= 0 || rest % inner[i] != 0) {
      throw UserError("dim '" + dim + "' of " + to_string(x) + " does not divide into parts of '" + into[i + 1] +
                      "' = " + std::to_string(inner[i]));
    }
    rest /= inner[i];
    dims.push_back({into[i + 1], inner[i]});
  }
  dims[0].size = rest;
  return {replaced(x, at, 1, dims)};
}

void gradient_split(GradientContext& context) {
  context.gradients[0] =
      cast(merge(*context.upstream[0], context.attributes().names("into"), context.attributes().text("dim")), context.gradient_dtype(0));
}

// ---- merge {dims, into} ----

std::vector<Type> infer_merge(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::vector<std::string> dims = signature.attributes->names("dims");
  if (dims.empty()) throw UserError("merge names no dims of " + to_string(x));
  const size_t at = place_of(x, dims[0]);
  int64_t size = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (place_of(x, dims[i]) != at + i) {
      throw UserError("merge wants neighbouring dims, outermost first: '" + dims[i] + "' does not follow '" + dims[i - 1] + "' in " +
                      to_string(x) + "; reorder it first");
    }
    size *= x.dims[at + i].size;
  }
  return {replaced(x, at, dims.size(), {{signature.attributes->text("into"), size}})};
}

void gradient_merge(GradientContext& context) {
  std::vector<Dim> into;
  for (const std::string& dim : context.attributes().names("dims")) into.push_back({dim, context.operands[0].size(dim)});
  context.gradients[0] = cast(split(*context.upstream[0], context.attributes().text("into"), into), context.gradient_dtype(0));
}

constexpr std::array<OpDef, 3> kDefs{OpDef{.name = "rename",
                                           .doc = "The dim `from` under the name `to`",
                                           .num_operands = 1,
                                           .infer = infer_rename,
                                           .gradient = gradient_rename,
                                           .cost = free_of_cost,
                                           .reference = copy,
                                           .view = true,
                                           .jointly_linear = always_linear},
                                     OpDef{.name = "split",
                                           .doc = "The dim `dim` as the dims `into`, outermost first",
                                           .num_operands = 1,
                                           .infer = infer_split,
                                           .gradient = gradient_split,
                                           .cost = free_of_cost,
                                           .reference = copy,
                                           .view = true,
                                           .jointly_linear = always_linear,
                                           .localize = localize_split},
                                     OpDef{.name = "merge",
                                           .doc = "The neighbouring dims `dims`, outermost first, as one dim `into`",
                                           .num_operands = 1,
                                           .infer = infer_merge,
                                           .gradient = gradient_merge,
                                           .cost = free_of_cost,
                                           .reference = copy,
                                           .view = true,
                                           .jointly_linear = always_linear}};

}  // namespace

std::span<const OpDef> view_ops() { return kDefs; }

Tensor rename(Tensor x, std::string from, std::string to, Source source) {
  return x.builder->append1(kDefs[0], {x}, {{"from", std::move(from)}, {"to", std::move(to)}}, source);
}

Tensor split(Tensor x, std::string dim, std::vector<Dim> into, Source source) {
  int64_t size = 1;
  std::vector<std::string> names;
  std::vector<int64_t> inner;
  for (const Dim& part : into) {
    size *= part.size;
    names.push_back(part.name);
    if (names.size() > 1) inner.push_back(part.size);
  }
  if (!into.empty() && x.has(dim) && x.size(dim) != size) {
    throw UserError("split: dim '" + dim + "' of " + to_string(x.type()) + " has " + std::to_string(x.size(dim)) +
                    " elements, its new dims " + to_string(Type{x.dtype(), into}) + " have " + std::to_string(size));
  }
  return x.builder->append1(kDefs[1], {x}, {{"dim", std::move(dim)}, {"into", std::move(names)}, {"inner", std::move(inner)}}, source);
}

Tensor merge(Tensor x, std::vector<std::string> dims, std::string into, Source source) {
  return x.builder->append1(kDefs[2], {x}, {{"dims", std::move(dims)}, {"into", std::move(into)}}, source);
}

}  // namespace mw
