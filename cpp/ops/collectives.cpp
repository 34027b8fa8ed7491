// Collectives: type rules, and references for one part. The communicator runs them for more.
#include "ops/collectives.h"

#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/op_list.h"

namespace mw {
namespace {

int64_t parts_of(const Signature& signature) {
  const int64_t parts = signature.attributes->integer("parts");
  if (parts < 1 || parts > INT32_MAX) throw UserError("'parts' is " + std::to_string(parts) + "; expected 1 or more");
  return parts;
}

Type gathered(Type type, const std::string& dim, int64_t parts) {
  const int64_t size = type.size_of(dim);
  if (__builtin_mul_overflow(size, parts, &type.dims[static_cast<size_t>(type.index_of(dim))].size))
    throw UserError(std::to_string(parts) + " parts of " + to_string(type) + " are too many");
  return type;
}

Type scattered(Type type, const std::string& dim, int64_t parts) {
  if (type.size_of(dim) % parts != 0)
    throw UserError(std::to_string(parts) + " parts do not divide dim '" + dim + "' of " + to_string(type));
  type.dims[static_cast<size_t>(type.index_of(dim))].size /= parts;
  return type;
}

std::vector<Type> infer_gather(const Signature& signature) {
  return {gathered(signature.operand(0), signature.attributes->text("dim"), parts_of(signature))};
}
std::vector<Type> infer_scatter(const Signature& signature) {
  return {scattered(signature.operand(0), signature.attributes->text("dim"), parts_of(signature))};
}

std::vector<Type> infer_all_reduce(const Signature& signature) {
  parts_of(signature);
  const std::string& kind = signature.attributes->text("kind");
  if (kind != "sum" && kind != "max") throw UserError("kind '" + kind + "'; expected 'sum' or 'max'");
  return {signature.operand(0)};
}

std::vector<Type> infer_all_to_all(const Signature& signature) {
  const std::string split_dim = signature.attributes->text("split_dim"), concat_dim = signature.attributes->text("concat_dim");
  if (split_dim == concat_dim) throw UserError("dim '" + split_dim + "' cannot be both split and concatenated");
  return {gathered(scattered(signature.operand(0), split_dim, parts_of(signature)), concat_dim, parts_of(signature))};
}

std::vector<Type> infer_offset(const Signature& signature) {
  const int64_t parts = parts_of(signature), behind = signature.attributes->integer_or("behind", 0);
  if (behind < 0 || behind >= parts)
    throw UserError("'behind' is " + std::to_string(behind) + "; expected 0 to " + std::to_string(parts - 1));
  return {{DType::kI32, {}}};
}

std::vector<Type> infer_shift(const Signature& signature) {
  parts_of(signature);
  return {signature.operand(0)};
}

DimRole role(const Signature&, std::string_view) { return {.use = DimUse::kWhole}; }
Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }

// With one part every collective is the identity, and the shard begins at 0.
void reference(const ReferenceContext& context) {
  MW_CHECK(context.attributes->integer("parts") == 1, "a collective over several parts is run by a communicator");
  if (!context.operands.empty()) context.result(0).data = context.operand(0).data;
}

constexpr OpDef def(std::string_view name, std::string_view doc, std::vector<Type> (*infer)(const Signature&), int num_operands = 1,
                    DimRole (*role_of_dim)(const Signature&, std::string_view) = role) {
  return {.name = name,
          .doc = doc,
          .num_operands = num_operands,
          .infer = infer,
          .role = role_of_dim,
          .cost = moves_only,
          .reference = reference,
          .collective = true};
}

constexpr std::array<OpDef, 7> kDefs{
    def("all_gather", "The shards of all parts one after another along `dim`", infer_gather),
    def("reduce_scatter", "This rank's shard along `dim` of the sum over all parts", infer_scatter),
    def("all_reduce", "The sum or max over all parts", infer_all_reduce, 1, nullptr),
    def("all_to_all", "`split_dim` in pieces, one to each part; what arrives one after another along `concat_dim`", infer_all_to_all),
    def("shard_slice", "This rank's shard along `dim` of a value that every part holds; nothing is sent", infer_scatter),
    def("shard_offset",
        "The first global index of this rank's shard of a dim: its position among the parts times `size`. behind b: that of the part b "
        "before it, around the ring",
        infer_offset, 0),
    def("ring_shift", "The value of the part before this one; the first part has the last one's", infer_shift)};

}  // namespace

std::span<const OpDef> collective_ops() { return kDefs; }

Tensor all_gather(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(kDefs[0], {x}, {{"dim", std::move(dim)}, {"axes", std::move(axes)}, {"parts", parts}}, source);
}
Tensor reduce_scatter(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(kDefs[1], {x}, {{"dim", std::move(dim)}, {"axes", std::move(axes)}, {"parts", parts}}, source);
}
Tensor all_reduce(Tensor x, std::string kind, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(kDefs[2], {x}, {{"kind", std::move(kind)}, {"axes", std::move(axes)}, {"parts", parts}}, source);
}
Tensor all_to_all(Tensor x, std::string split_dim, std::string concat_dim, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(
      kDefs[3], {x},
      {{"split_dim", std::move(split_dim)}, {"concat_dim", std::move(concat_dim)}, {"axes", std::move(axes)}, {"parts", parts}}, source);
}
Tensor shard_slice(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(kDefs[4], {x}, {{"dim", std::move(dim)}, {"axes", std::move(axes)}, {"parts", parts}}, source);
}
Tensor shard_offset(Builder& builder, std::vector<std::string> axes, int64_t parts, int64_t size, int64_t behind, Source source) {
  Attributes attributes{{"axes", std::move(axes)}, {"parts", parts}, {"size", size}};
  if (behind != 0) attributes.set("behind", behind);
  return builder.append1(kDefs[5], {}, std::move(attributes), source);
}
std::vector<Tensor> zigzag_offsets(Builder& builder, const std::vector<std::string>& axes, int64_t parts, int64_t size, int64_t behind) {
  const int64_t block = size / 2;
  const Tensor first = shard_offset(builder, axes, parts, block, behind);
  const Tensor last_block = constant(builder, static_cast<double>((2 * parts - 1) * block), Type{DType::kI32, {}});
  return {first, last_block - first};
}
Tensor ring_shift(Tensor x, std::vector<std::string> axes, int64_t parts, Source source) {
  return x.builder->append1(kDefs[6], {x}, {{"axes", std::move(axes)}, {"parts", parts}}, source);
}

}  // namespace mw
