// What the whole project needs to know of one kind of op. Each op file in cpp/ops fills one of these, and nothing else
// has to change when an op is added.
#pragma once
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attributes.h"
#include "ir/type.h"

namespace mw {

class Builder;
struct Tensor;

// Operand and result types of one op and its settings: all that a type rule, role or cost may look at.
struct Signature {
  std::vector<const Type*> operands;
  std::vector<const Type*> results;  // empty while the type rule runs
  const Attributes* attributes = nullptr;

  const Type& operand(size_t i) const;  // UserError when it is missing
  const Type& result(size_t i) const { return *results.at(i); }
  // Operands without the shard offsets that partition appends (attribute `offsets`, one trailing i32 scalar per name).
  size_t num_data_operands() const { return operands.size() - attributes->names_or_empty("offsets").size(); }
};

// How an op treats one dim of its loop space (every dim name of its operands and results).
enum class DimUse : uint8_t {
  kMapped,      // each index is worked on its own: the dim may be sharded
  kContracted,  // summed (or max-ed) away: shards leave the results that lack the dim partial
  kWhole,       // every index is needed at once: the dim must not be sharded
};

// How the partial results of shards are combined.
enum class PartialKind : uint8_t { kSum, kMax, kLogSumExp };

struct DimRole {
  DimUse use = DimUse::kMapped;
  // A shard of this dim must know its first global index, given as a trailing operand named in the attribute `offsets`.
  bool needs_offset = false;
  // And the shard may lie in zigzag order: then the dim is named twice, and there are two first indices, one for each half.
  bool takes_halves = false;
};

struct Cost {
  double flops = 0;  // multiply-add counts two
  double bytes = 0;  // read and written once
};

// Arrays of the reference implementation: double whatever the Value's dtype (integers are exact below 2^53).
struct HostArray {
  Type type;
  std::vector<double> data;
};

struct ReferenceContext {
  std::vector<const HostArray*> operands;
  std::vector<HostArray*> results;  // typed and zero-filled
  const Attributes* attributes = nullptr;
  int64_t step = 0;  // of the counter-based random ops

  const HostArray& operand(size_t i) const { return *operands.at(i); }
  HostArray& result(size_t i) const { return *results.at(i); }
};

struct GradientContext;

// Where the sizes of result 0 do not follow from the operands (constant, iota, broadcast_to, scatter_rows, random), its whole type
// stands in the attribute `type`, and `localize` is localize_type.
struct OpDef {
  std::string_view name;
  std::string_view doc;  // formula and source, in a paragraph

  // Operands before the offsets; -1: a number that the type rule checks.
  int num_operands = -1;
  // Type rule, called through infer_types. UserError says which dims were expected and found.
  std::vector<Type> (*infer)(const Signature&) = nullptr;
  // Role of a dim of the loop space; null: every dim is mapped.
  DimRole (*role)(const Signature&, std::string_view dim) = nullptr;
  // The dims whose shards `dim` carries, major first: rows of experts have those of the tokens they come from. Null: none does.
  std::vector<std::string> (*carries)(const Signature&, std::string_view dim) = nullptr;
  // How partial results combine when a contracted dim is sharded; null: by sum.
  PartialKind (*partial)(const Signature&, std::string_view dim, size_t result) = nullptr;
  // Appends gradient ops; null: not differentiable (integer results, optimizer updates).
  void (*gradient)(GradientContext&) = nullptr;
  Cost (*cost)(const Signature&) = nullptr;  // null: bytes of operands and results, one FLOP per result element
  void (*reference)(const ReferenceContext&) = nullptr;
  // The op in simpler ops (same operands, same number of results); null for primitives.
  std::vector<Tensor> (*decompose)(const std::vector<Tensor>& operands, const Attributes&) = nullptr;

  bool elementwise = false;  // result i depends on the operands at the same named index only: may be fused in a chain
  // rename, split, merge: the result is the operand's bytes under other dims. Partition follows the bytes instead of asking for roles: of
  // the dims that a view splits or merges only the outermost, which stays outermost, may be sharded.
  bool view = false;
  // Partial sums may be passed on: of all operands together (add, rename, slice, cast to wider) ...
  bool (*jointly_linear)(const Signature&) = nullptr;
  // ... or of operand i alone while the others are whole (scaling by a scalar).
  bool (*linear_in)(const Signature&, size_t operand) = nullptr;
  // Rewrites sizes that attributes hold to those of one shard; null: there are none but in the attribute `type`, which partition does.
  void (*localize)(Attributes&, const std::function<int64_t(std::string_view dim)>& shards) = nullptr;
  // Result i may be written over operand in_place[i] (same dims and dtype): updates of a state. Elementwise ops need no mention.
  std::array<int8_t, 4> in_place{-1, -1, -1, -1};
  // Partition replaces the op by its decomposition when a dim that it needs whole is sharded by the rules.
  bool decompose_when_sharded = false;
  bool collective = false;
};

// The result types: the number of operands and the offsets are checked, then the op's own rule runs.
std::vector<Type> infer_types(const OpDef& def, const Signature& signature);

Cost default_cost(const Signature& signature);
// Divides the sizes in the attribute `type`.
void localize_type(Attributes& attributes, const std::function<int64_t(std::string_view dim)>& shards);
inline Cost cost_of(const OpDef& def, const Signature& signature) { return def.cost ? def.cost(signature) : default_cost(signature); }

}  // namespace mw
