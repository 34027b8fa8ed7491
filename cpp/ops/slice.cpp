// slice, concat and pad along one dim, which none of them can work on in shards.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

bool always_linear(const Signature&) { return true; }
Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }
DimRole role(const Signature& signature, std::string_view dim) {
  return {.use = signature.attributes->text("dim") == dim ? DimUse::kWhole : DimUse::kMapped};
}

Type resized(const Type& x, const std::string& dim, int64_t size) {
  x.size_of(dim);  // UserError when absent
  Type result = x;
  result.dims[static_cast<size_t>(x.index_of(dim))].size = size;
  return result;
}

// Copies rows [from_start, from_start + count) of `from` to rows [to_start, ...) of `to`, along `dim`.
void copy_rows(const HostArray& from, int64_t from_start, HostArray& to, int64_t to_start, int64_t count, const std::string& dim) {
  const size_t at = static_cast<size_t>(from.type.index_of(dim));
  const int64_t inner = from.type.strides()[at], from_rows = from.type.dims[at].size, to_rows = to.type.dims[at].size;
  int64_t outer = 1;
  for (size_t d = 0; d < at; ++d) outer *= from.type.dims[d].size;
  for (int64_t o = 0; o < outer; ++o) {
    const auto begin = from.data.begin() + (o * from_rows + from_start) * inner;
    std::copy(begin, begin + count * inner, to.data.begin() + (o * to_rows + to_start) * inner);
  }
}

// ---- slice {dim, start, size} ----

std::vector<Type> infer_slice(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::string dim = signature.attributes->text("dim");
  const int64_t start = signature.attributes->integer("start"), size = signature.attributes->integer("size"), whole = x.size_of(dim);
  if (start < 0 || size < 0 || start > whole || size > whole - start) {
    throw UserError("rows " + std::to_string(start) + " to " + std::to_string(start) + " + " + std::to_string(size) +
                    " are not within dim '" + dim + "' of " + to_string(x));
  }
  return {resized(x, dim, size)};
}

void gradient_slice(GradientContext& context) {
  const std::string dim = context.attributes().text("dim");
  const int64_t start = context.attributes().integer("start"), size = context.attributes().integer("size");
  context.gradients[0] =
      pad(cast(*context.upstream[0], context.gradient_dtype(0)), dim, start, context.operands[0].size(dim) - start - size);
}

void reference_slice(const ReferenceContext& context) {
  const Attributes& a = *context.attributes;
  copy_rows(context.operand(0), a.integer("start"), context.result(0), 0, a.integer("size"), a.text("dim"));
}

// ---- pad {dim, before, after} ----

std::vector<Type> infer_pad(const Signature& signature) {
  const Type& x = signature.operand(0);
  const std::string dim = signature.attributes->text("dim");
  const int64_t before = signature.attributes->integer("before"), after = signature.attributes->integer("after");
  constexpr int64_t kMost = int64_t{1} << 48;
  if (before < 0 || after < 0 || before > kMost || after > kMost)
    throw UserError("not a number of zeros to put around dim '" + dim + "' of " + to_string(x));
  return {resized(x, dim, before + x.size_of(dim) + after)};
}

void gradient_pad(GradientContext& context) {
  const std::string dim = context.attributes().text("dim");
  context.gradients[0] = cast(slice(*context.upstream[0], dim, context.attributes().integer("before"), context.operands[0].size(dim)),
                              context.gradient_dtype(0));
}

void reference_pad(const ReferenceContext& context) {
  const std::string dim = context.attributes->text("dim");
  copy_rows(context.operand(0), 0, context.result(0), context.attributes->integer("before"), context.operand(0).type.size_of(dim), dim);
}

// ---- concat {dim} ----

std::vector<Type> infer_concat(const Signature& signature) {
  const std::string dim = signature.attributes->text("dim");
  if (signature.operands.empty()) throw UserError("concat along '" + dim + "' has no operands");
  const Type& first = signature.operand(0);
  int64_t size = 0;
  for (const Type* part : signature.operands) {
    size += part->size_of(dim);
    if (resized(*part, dim, 0) != resized(first, dim, 0)) {
      throw UserError("operands " + to_string(first) + " and " + to_string(*part) + " differ in more than the size of '" + dim +
                      "'; cast or reorder one of them");
    }
  }
  return {resized(first, dim, size)};
}

void gradient_concat(GradientContext& context) {
  const std::string dim = context.attributes().text("dim");
  int64_t start = 0;
  for (size_t i = 0; i < context.operands.size(); ++i) {
    const int64_t size = context.operands[i].size(dim);
    if (context.needed[i]) context.gradients[i] = cast(slice(*context.upstream[0], dim, start, size), context.gradient_dtype(i));
    start += size;
  }
}

void reference_concat(const ReferenceContext& context) {
  const std::string dim = context.attributes->text("dim");
  int64_t start = 0;
  for (const HostArray* part : context.operands) {
    const int64_t size = part->type.size_of(dim);
    copy_rows(*part, 0, context.result(0), start, size, dim);
    start += size;
  }
}

constexpr std::array<OpDef, 3> kDefs{OpDef{.name = "slice",
                                           .doc = "Rows `start` to `start + size` along `dim`",
                                           .num_operands = 1,
                                           .infer = infer_slice,
                                           .role = role,
                                           .gradient = gradient_slice,
                                           .cost = moves_only,
                                           .reference = reference_slice,
                                           .jointly_linear = always_linear},
                                     OpDef{.name = "concat",
                                           .doc = "The operands one after another along `dim`",
                                           .infer = infer_concat,
                                           .role = role,
                                           .gradient = gradient_concat,
                                           .cost = moves_only,
                                           .reference = reference_concat,
                                           .jointly_linear = always_linear},
                                     OpDef{.name = "pad",
                                           .doc = "x with `before` and `after` zeros around it along `dim`",
                                           .num_operands = 1,
                                           .infer = infer_pad,
                                           .role = role,
                                           .gradient = gradient_pad,
                                           .cost = moves_only,
                                           .reference = reference_pad,
                                           .jointly_linear = always_linear}};

}  // namespace

std::span<const OpDef> slice_ops() { return kDefs; }

Tensor slice(Tensor x, std::string dim, int64_t start, int64_t size, Source source) {
  return x.builder->append1(kDefs[0], {x}, {{"dim", std::move(dim)}, {"start", start}, {"size", size}}, source);
}

Tensor concat(std::vector<Tensor> parts, std::string dim, Source source) {
  if (parts.empty()) throw UserError("concat along '" + dim + "' has no operands");
  return parts[0].builder->append1(kDefs[1], parts, {{"dim", std::move(dim)}}, source);
}

Tensor pad(Tensor x, std::string dim, int64_t before, int64_t after, Source source) {
  return x.builder->append1(kDefs[2], {x}, {{"dim", std::move(dim)}, {"before", before}, {"after", after}}, source);
}

}  // namespace mw
