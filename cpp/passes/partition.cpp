#include "passes/partition.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "ops/ops.h"
#include "passes/convert.h"
#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/edit.h"

namespace mw {
namespace {

using DimSizes = std::vector<std::pair<std::string, int64_t>>;

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool is_accumulator(std::string_view name) { return starts_with(name, kAccumulatorPrefix) || starts_with(name, kMetricPrefix); }

Layout to_layout(const std::vector<Assignment>& given) {
  Layout layout;
  for (const Assignment& a : given) {
    std::vector<AxisPart> parts = layout.parts(a.dim);
    parts.push_back({a.axis, a.size, a.stride});
    layout.set(a.dim, std::move(parts));
  }
  return layout;
}

// Every dim name of operands and results once, results first: their order decides which dim `*` calls outermost.
DimSizes loop_space(const Signature& signature) {
  DimSizes dims;
  const auto add = [&](const Type* type) {
    for (const Dim& dim : type->dims) {
      if (std::none_of(dims.begin(), dims.end(), [&](const auto& d) { return d.first == dim.name; })) dims.emplace_back(dim.name, dim.size);
    }
  };
  for (const Type* type : signature.results) add(type);
  for (const Type* type : signature.operands) add(type);
  return dims;
}

Layout restricted(const Layout& layout, const Type& type) {
  Layout own;
  for (const DimShards& entry : layout.dims) {
    if (type.has(entry.dim)) own.set(entry.dim, entry.parts);
  }
  return own;
}

DimRole role_of(const Op& op, const Signature& signature, std::string_view dim) { return op.def->role ? op.def->role(signature, dim) : DimRole{}; }

// Partitions one piece. Layouts of values that pieces share by name are kept in `shared`.
class PiecePartitioner {
 public:
  PiecePartitioner(const Program& program, const Mesh& mesh, const Rules& rules, const RuleTable& table, std::map<std::string, SharedValue>& shared)
      : program_(program), mesh_(mesh), rules_(rules), table_(table), shared_(shared), own_builder_(program.name), builder_(own_builder_), values_(program.values.size()) {
    for (const ProgramOutput& output : program.outputs) outputs_[output.value].push_back(&output);
  }

  Program run() {
    for (const ProgramInput& input : program_.inputs) declare(input);
    for (const Op& op : program_.ops) {
      builder_.set_origin(program_, op);
      builder_.set_pass(program_.passes[static_cast<size_t>(op.pass)]);
      visit(op);
      for (const ValueId id : op.results) deliver(id);
    }
    for (const ProgramInput& input : program_.inputs) deliver(input.value);
    return builder_.take();
  }

 private:
  struct Slot {
    bool made = false;
    Sharded value;
    std::vector<Sharded> converted;  // the conversions made of it so far
  };

  Slot& slot(ValueId id) { return values_[static_cast<size_t>(id)]; }

  void define(ValueId id, Tensor local, Layout layout) {
    Slot& s = slot(id);
    s.made = true;
    s.value = {local, program_.type(id), std::move(layout)};
  }

  void declare(const ProgramInput& input) {
    const Type& type = program_.type(input.value);
    const auto known = shared_.find(input.name);
    if (input.kind == InputKind::kInput && known == shared_.end()) return;  // laid out by its first use
    if (known == shared_.end()) {
      const RuleTable& table = input.kind == InputKind::kParameter ? rules_.parameters : is_accumulator(input.name) ? rules_.gradients : table_;
      shared_[input.name] = {type, stored_layout(table, mesh_, type)};
    }
    const Layout& layout = shared_[input.name].layout;
    define(input.value, add_input(input, local_type(type, layout)), layout);
  }

  Tensor add_input(const ProgramInput& input, Type type) {
    switch (input.kind) {
      case InputKind::kParameter: return builder_.parameter(input.name, std::move(type));
      case InputKind::kInput: return builder_.input(input.name, std::move(type));
      case InputKind::kState: return builder_.state(input.name, std::move(type));
      case InputKind::kCarried: return builder_.carried(input.name, std::move(type));
    }
    throw InternalError("unknown kind of input");
  }

  // The value in the layout `to`, converted once per layout.
  Sharded use(ValueId id, const Layout& to) {
    Slot& s = slot(id);
    if (!s.made) {
      for (const ProgramInput& input : program_.inputs) {
        if (input.value != id) continue;
        const Layout layout = to.without_partial();
        shared_[input.name] = {program_.type(id), layout};
        define(id, add_input(input, local_type(program_.type(id), layout)), layout);
      }
    }
    MW_CHECK(s.made, "value %", id, " of ", program_.name, " is used before it is made");
    if (s.value.layout == to) return s.value;
    for (const Sharded& made : s.converted) {
      if (made.layout == to) return made;
    }
    Sharded made = convert(s.value, to);
    // Once somebody needs the sum, everybody reads it: a partial is reduced once.
    if (to.partial.size() < s.value.layout.partial.size()) {
      s.converted.clear();
      s.value = made;
    } else {
      s.converted.push_back(made);
    }
    return made;
  }

  // Where the value must go: outputs are delivered as soon as they are made.
  void deliver(ValueId id) {
    const auto at = outputs_.find(id);
    if (at == outputs_.end()) return;
    for (const ProgramOutput* output : at->second) {
      const Type& type = program_.type(id);
      Layout to;
      switch (output->kind) {
        case OutputKind::kResult: break;  // whole
        case OutputKind::kCarried: to = carried_layout(id); break;
        case OutputKind::kState: to = state_layout(output->name, id); break;
      }
      if (output->kind != OutputKind::kResult) shared_[output->name] = {type, to};
      builder_.output(output->name, use(id, to).local, output->kind);
    }
    outputs_.erase(at);
  }

  // As it is made; a partial is reduced into the layout that the compute table gives to its own dims.
  Layout carried_layout(ValueId id) {
    const Layout& made = slot(id).value.layout;
    return made.partial.empty() ? made : stored_layout(table_, mesh_, program_.type(id));
  }

  Layout state_layout(const std::string& name, ValueId id) {
    const auto known = shared_.find(name);
    if (known != shared_.end()) return known->second.layout;
    const Type& type = program_.type(id);
    if (starts_with(name, kGradientPrefix)) return stored_layout(rules_.optimizer, mesh_, type);
    if (!is_accumulator(name)) return stored_layout(table_, mesh_, type);
    // Parts that the gradient table does not give to a dim stay partial and are reduced once per step.
    Layout to = stored_layout(rules_.gradients, mesh_, type);
    for (const PartialOver& partial : slot(id).value.layout.partial) {
      const bool scattered = std::any_of(to.dims.begin(), to.dims.end(), [&](const DimShards& entry) {
        return std::any_of(entry.parts.begin(), entry.parts.end(), [&](const AxisPart& part) { return part.axis == partial.part.axis; });
      });
      if (!scattered) to.partial.push_back(partial);
    }
    return to;
  }

  void visit(const Op& op) {
    if (op.def->name == "sum_of_squares") return visit_sum_of_squares(op);
    if (op.def->view) return visit_view(op);
    if (adds_to_accumulator(op)) return visit_accumulation(op);
    const Signature signature = program_.signature(op);
    const std::vector<PartialOver> passed = partial_passed_on(op, signature);
    const DimSizes dims = loop_space(signature);
    std::vector<bool> may_shard;
    for (const auto& [dim, size] : dims) may_shard.push_back(role_of(op, signature, dim).use != DimUse::kWhole);
    std::vector<std::string> taken;
    for (const PartialOver& partial : passed) taken.push_back(partial.part.axis);
    const Layout layout = read(op, dims, may_shard, taken);
    if (op.def->decompose_when_sharded && loses_an_axis(signature, dims, may_shard)) return visit_decomposed(op);
    emit(op, signature, layout, passed);
  }

  Layout read(const Op& op, const DimSizes& dims, const std::vector<bool>& may_shard, const std::vector<std::string>& taken) const {
    try {
      return to_layout(read_table(table_, mesh_, dims, may_shard, taken));
    } catch (const UserError& error) {
      throw UserError(program_.describe(op) + ": " + error.what());
    }
  }

  // True when the rules would shard a dim that the op needs whole.
  bool loses_an_axis(const Signature&, const DimSizes& dims, const std::vector<bool>& may_shard) const {
    for (size_t i = 0; i < dims.size(); ++i) {
      if (may_shard[i]) continue;
      for (const RuleRow& row : table_) {
        if (row.dim == dims[i].first && mesh_.size_of(row.axis) > 1) return true;
      }
    }
    return false;
  }

  // The partial sums that the op hands through unreduced.
  std::vector<PartialOver> partial_passed_on(const Op& op, const Signature& signature) {
    const auto partial = [&](size_t i) -> const std::vector<PartialOver>& { return slot(op.operands[i]).value.layout.partial; };
    const auto sums_only = [](const std::vector<PartialOver>& list) {
      return !list.empty() && std::all_of(list.begin(), list.end(), [](const PartialOver& p) { return p.kind == PartialKind::kSum; });
    };
    if (op.operands.empty() || op.results.size() != 1) return {};
    if (op.def->jointly_linear && op.def->jointly_linear(signature)) {
      int64_t largest = 0;
      for (size_t i = 0; i < op.operands.size(); ++i) {
        if (!slot(op.operands[i]).made || partial(i) != partial(0)) return {};
        largest = std::max(largest, signature.operand(i).elements());
      }
      if (signature.result(0).elements() > largest) return {};  // reduced first: that moves less
      return sums_only(partial(0)) ? partial(0) : std::vector<PartialOver>{};
    }
    if (!op.def->linear_in) return {};
    for (size_t i = 0; i < op.operands.size(); ++i) {
      if (!slot(op.operands[i]).made || !sums_only(partial(i)) || !op.def->linear_in(signature, i)) continue;
      bool others_whole = true;
      for (size_t j = 0; j < op.operands.size(); ++j) others_whole &= j == i || !slot(op.operands[j]).made || partial(j).empty();
      if (others_whole) return partial(i);
    }
    return {};
  }

  void emit(const Op& op, const Signature& signature, const Layout& layout, const std::vector<PartialOver>& passed) {
    std::vector<Tensor> operands;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      Layout to = restricted(layout, program_.type(op.operands[i]));
      const Slot& s = slot(op.operands[i]);
      if (s.made && !passed.empty() && s.value.layout.partial == passed) to.partial = passed;
      operands.push_back(use(op.operands[i], to).local);
    }
    Attributes attributes = op.attributes;
    localize(op, attributes, layout);
    add_offsets(op, signature, layout, operands, attributes);
    const std::vector<Tensor> results = builder_.append(*op.def, operands, std::move(attributes), Source());
    for (size_t r = 0; r < results.size(); ++r) {
      const Type& type = program_.type(op.results[r]);
      Layout own = restricted(layout, type);
      own.partial = passed;
      for (const DimShards& entry : layout.dims) {
        if (type.has(entry.dim)) continue;
        const PartialKind kind = op.def->partial ? op.def->partial(signature, entry.dim, r) : PartialKind::kSum;
        for (const AxisPart& part : entry.parts) own.partial.push_back({part, kind});
      }
      define(op.results[r], results[r], std::move(own));
    }
  }

  // Sizes in attributes become those of a shard.
  static void localize(const Op& op, Attributes& attributes, const Layout& layout) {
    if (op.def->localize) op.def->localize(attributes, [&](std::string_view dim) { return layout.shards(dim); });
  }

  // A shard of a dim whose index matters is told its first global index.
  void add_offsets(const Op& op, const Signature& signature, const Layout& layout, std::vector<Tensor>& operands, Attributes& attributes) {
    std::vector<std::string> names = attributes.names_or_empty("offsets");
    for (const DimShards& entry : layout.dims) {
      if (!role_of(op, signature, entry.dim).needs_offset) continue;
      int64_t size = 0;
      for (const auto& [dim, whole] : loop_space(signature)) {
        if (dim == entry.dim) size = whole / total_size(entry.parts);
      }
      names.push_back(entry.dim);
      operands.push_back(shard_offset(builder_, part_names(entry.parts), total_size(entry.parts), size));
    }
    if (!names.empty()) attributes.set("offsets", std::move(names));
  }

  // rename, split, merge: the same bytes under other dims, so the layout follows the bytes.
  void visit_view(const Op& op) {
    const Signature signature = program_.signature(op);
    const Type &from = signature.operand(0), &to = signature.result(0);
    Layout source = use_any(op.operands[0]).layout, target;
    // Dims in the same place on both sides keep their shards; in between, only the outermost of either side may be sharded.
    size_t a = 0, b = 0;
    while (a < from.dims.size() || b < to.dims.size()) {
      size_t a_end = a + 1, b_end = b + 1;
      int64_t a_size = from.dims[a].size, b_size = to.dims[b].size;
      while (a_size != b_size) (a_size < b_size) ? a_size *= from.dims[a_end++].size : b_size *= to.dims[b_end++].size;
      for (size_t i = a + 1; i < a_end; ++i) source.set(from.dims[i].name, {});
      std::vector<AxisPart> parts = source.parts(from.dims[a].name);
      while (to.dims[b].size % total_size(parts) != 0) parts.pop_back();
      source.set(from.dims[a].name, parts);
      target.set(to.dims[b].name, parts);
      a = a_end;
      b = b_end;
    }
    target.partial = source.partial;
    const Tensor operand = use(op.operands[0], source).local;
    Attributes attributes = op.attributes;
    localize(op, attributes, target);
    define(op.results[0], builder_.append1(*op.def, {operand}, std::move(attributes), Source()), target);
  }

  Sharded use_any(ValueId id) {
    if (slot(id).made) return slot(id).value;
    return use(id, stored_layout(table_, mesh_, program_.type(id)));
  }

  bool adds_to_accumulator(const Op& op) const {
    if (op.def->name != "add") return false;
    for (const ProgramInput& input : program_.inputs) {
      if (input.value == op.operands[0]) return is_accumulator(input.name);
    }
    return false;
  }

  // accumulator + gradient: in the accumulator's layout, partial where that is.
  void visit_accumulation(const Op& op) {
    const Layout layout = slot(op.operands[0]).value.layout;
    const Sharded gradient = use(op.operands[1], layout);
    define(op.results[0], builder_.append1(*op.def, {slot(op.operands[0]).value.local, gradient.local}, op.attributes, Source()), layout);
  }

  // Named expansion: operands are grouped by the parts that shard them, each group's sum is reduced over those parts once.
  void visit_sum_of_squares(const Op& op) {
    std::vector<std::pair<std::vector<AxisPart>, std::vector<Tensor>>> groups;
    for (const ValueId id : op.operands) {
      const Sharded value = use(id, use_any(id).layout.without_partial());
      std::vector<AxisPart> parts;
      for (const DimShards& entry : value.layout.dims) parts.insert(parts.end(), entry.parts.begin(), entry.parts.end());
      const auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == parts; });
      (group == groups.end() ? groups.emplace_back(parts, std::vector<Tensor>{}) : *group).second.push_back(value.local);
    }
    std::optional<Tensor> total;
    for (const auto& [parts, tensors] : groups) {
      Tensor sum = sum_of_squares(tensors);
      if (!parts.empty()) sum = all_reduce(sum, "sum", part_names(parts), total_size(parts));
      total = total ? *total + sum : sum;
    }
    define(op.results[0], *total, {});
  }

  // The op needs a dim whole that the rules shard: its parts do not.
  void visit_decomposed(const Op& op) {
    Builder whole(program_.name);
    std::vector<Tensor> operands;
    for (size_t i = 0; i < op.operands.size(); ++i) operands.push_back(whole.input(std::to_string(i), program_.type(op.operands[i])));
    const std::vector<Tensor> results = op.def->decompose(operands, op.attributes);
    for (size_t i = 0; i < results.size(); ++i) whole.output(std::to_string(i), results[i]);
    const Program parts = whole.take();

    PiecePartitioner inner(parts, mesh_, rules_, table_, shared_, builder_);
    for (size_t i = 0; i < op.operands.size(); ++i) {
      if (!slot(op.operands[i]).made) use_any(op.operands[i]);
      const Sharded& value = slot(op.operands[i]).value;
      inner.define(static_cast<ValueId>(i), value.local, value.layout);
    }
    for (const Op& part : parts.ops) inner.visit(part);
    for (size_t i = 0; i < op.results.size(); ++i) {
      const Sharded& value = inner.slot(parts.outputs[i].value).value;
      define(op.results[i], value.local, value.layout);
    }
  }

  // For the parts of a decomposed op: appends to the outer piece.
  PiecePartitioner(const Program& program, const Mesh& mesh, const Rules& rules, const RuleTable& table, std::map<std::string, SharedValue>& shared, Builder& outer)
      : program_(program), mesh_(mesh), rules_(rules), table_(table), shared_(shared), own_builder_(""), builder_(outer), values_(program.values.size()) {}

  const Program& program_;
  const Mesh& mesh_;
  const Rules& rules_;
  const RuleTable& table_;
  std::map<std::string, SharedValue>& shared_;
  Builder own_builder_;
  Builder& builder_;
  std::vector<Slot> values_;
  std::unordered_map<ValueId, std::vector<const ProgramOutput*>> outputs_;
};

// When accumulator and gradient have one layout they are one buffer: the sum is formed in place.
void join_accumulators(Plan& plan) {
  std::map<std::string, std::string> renamed;
  for (const auto& [name, value] : plan.shared) {
    if (!starts_with(name, kAccumulatorPrefix)) continue;
    const std::string gradient = kGradientPrefix + name.substr(std::string(kAccumulatorPrefix).size());
    const auto at = plan.shared.find(gradient);
    if (at != plan.shared.end() && local_type(value.global_type, value.layout) == local_type(at->second.global_type, at->second.layout)) renamed[name] = gradient;
  }
  for (const auto& [from, to] : renamed) plan.shared.erase(from);
  for (Piece& piece : plan.pieces) {
    for (ProgramInput& input : piece.program.inputs) {
      if (const auto at = renamed.find(input.name); at != renamed.end()) input.name = at->second;
    }
    for (ProgramOutput& output : piece.program.outputs) {
      if (const auto at = renamed.find(output.name); at != renamed.end()) output.name = at->second;
    }
  }
}

}  // namespace

Layout stored_layout(const RuleTable& table, const Mesh& mesh, const Type& type) {
  DimSizes dims;
  for (const Dim& dim : type.dims) dims.emplace_back(dim.name, dim.size);
  try {
    return to_layout(read_table(table, mesh, dims, std::vector<bool>(dims.size(), true)));
  } catch (const UserError& error) {
    throw UserError(to_string(type) + ": " + error.what());
  }
}

Plan partition(Plan plan, const Mesh& mesh, const Rules& rules) {
  for (Piece& piece : plan.pieces) {
    const RuleTable& table = piece.name == "update" ? rules.optimizer : rules.compute;
    piece.program = PiecePartitioner(piece.program, mesh, rules, table, plan.shared).run();
    remove_dead_ops(piece.program);
  }
  join_accumulators(plan);
  return plan;
}

}  // namespace mw
