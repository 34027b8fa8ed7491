// random_uniform, random_normal: Philox numbers (base/philox.h) of each element's index in the whole value, so any shard or
// recomputation draws the same.
#include "ops/random.h"

#include <array>

#include "base/error.h"
#include "base/philox.h"
#include "ops/op_list.h"

namespace mw {
namespace {

constexpr size_t kNumKeys = 2;  // seed and step; offsets of sharded dims follow

// `type` is that of the shard, `sizes` are those of the whole value.
std::vector<Type> infer(const Signature& signature) {
  const Type result = parse_type(signature.attributes->text("type"));
  if (result.dtype != DType::kF32) throw UserError("random numbers are f32, not " + to_string(result) + "; cast them afterwards");
  for (size_t i = 0; i < kNumKeys; ++i) {
    const Type& key = signature.operand(i);
    if (key != Type{DType::kI32, {}}) throw UserError(std::string(i == 0 ? "seed" : "step") + " is " + to_string(key) + "; expected i32[]");
  }
  if (static_cast<int>(signature.attributes->integers("sizes").size()) != result.rank())
    throw UserError("'sizes' names one whole size for each dim of " + to_string(result));
  return {result};
}

DimRole role(const Signature&, std::string_view) { return {.use = DimUse::kMapped, .needs_offset = true}; }

template <typename FromWord>
void draw(const ReferenceContext& context, FromWord&& from_word) {
  HostArray& y = context.result(0);
  const Type& type = y.type;
  const std::vector<int64_t> sizes = context.attributes->integers("sizes");
  const std::vector<std::string> offsets = context.attributes->names_or_empty("offsets");
  std::vector<int64_t> index(sizes.size(), 0), first(sizes.size(), 0);
  for (size_t i = 0; i < offsets.size(); ++i)
    first.at(static_cast<size_t>(type.index_of(offsets[i]))) = static_cast<int64_t>(context.operand(kNumKeys + i).data[0]);
  const auto key = [&](size_t i) { return static_cast<uint64_t>(static_cast<int64_t>(context.operand(i).data[0])); };
  const RandomStream stream(key(0), key(1), context.attributes->text("name"));
  for (double& x : y.data) {
    uint64_t place = 0;
    for (size_t d = 0; d < sizes.size(); ++d) place = place * static_cast<uint64_t>(sizes[d]) + static_cast<uint64_t>(first[d] + index[d]);
    x = from_word(stream.word(place));
    for (size_t d = sizes.size(); d-- > 0;) {
      if (++index[d] < type.dims[d].size) break;
      index[d] = 0;
    }
  }
}

void reference_uniform(const ReferenceContext& context) { draw(context, uniform_from); }
void reference_normal(const ReferenceContext& context) { draw(context, normal_from); }

constexpr std::array<OpDef, 2> kDefs{
    OpDef{
        .name = "random_uniform",
        .doc =
            "Uniform in [0, 1): Philox 4x32-10 keyed by seed, step and `name`, one word per index of the whole value (Salmon et al. 2011)",
        .num_operands = 2,
        .infer = infer,
        .role = role,
        .reference = reference_uniform,
        .localize = localize_type},
    OpDef{.name = "random_normal",
          .doc = "Standard normal, by the inverse distribution function of random_uniform's words",
          .num_operands = 2,
          .infer = infer,
          .role = role,
          .reference = reference_normal,
          .localize = localize_type}};

Tensor append_random(const OpDef& def, const Type& type, Tensor seed, Tensor step, std::string name, const Source& source) {
  std::vector<int64_t> sizes;
  for (const Dim& dim : type.dims) sizes.push_back(dim.size);
  return seed.builder->append1(def, {seed, step}, {{"name", std::move(name)}, {"sizes", std::move(sizes)}, {"type", to_string(type)}},
                               source);
}

}  // namespace

std::span<const OpDef> random_ops() { return kDefs; }

Tensor random_uniform(Type type, Tensor seed, Tensor step, std::string name, Source source) {
  return append_random(kDefs[0], type, seed, step, std::move(name), source);
}
Tensor random_normal(Type type, Tensor seed, Tensor step, std::string name, Source source) {
  return append_random(kDefs[1], type, seed, step, std::move(name), source);
}

}  // namespace mw
