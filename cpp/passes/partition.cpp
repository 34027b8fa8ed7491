#include "passes/partition.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "ir/dim_names.h"
#include "ops/ops.h"
#include "passes/convert.h"
#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/edit.h"
#include "passes/input_layouts.h"
#include "passes/op_layout.h"
#include "passes/ring_attention.h"

namespace mw {
namespace {

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool is_gradient(std::string_view name) { return starts_with(name, kAccumulatorPrefix) || starts_with(name, kGradientPrefix); }
bool is_accumulator(std::string_view name) { return starts_with(name, kAccumulatorPrefix) || starts_with(name, kMetricPrefix); }

// Partitions one piece. Layouts of values that pieces share by name are kept in `shared`.
class PiecePartitioner {
 public:
  PiecePartitioner(const Piece& piece, const Mesh& mesh, const Rules& rules, const RuleTable& table, DType reduce_dtype,
                   std::map<std::string, SharedValue>& shared)
      : program_(piece.program),
        mesh_(mesh),
        rules_(rules),
        table_(table),
        reduce_dtype_(reduce_dtype),
        shared_(shared),
        own_builder_(program_.name),
        builder_(own_builder_),
        values_(program_.values.size()) {
    builder_.declare_dims_of(program_);
    for (const ProgramOutput& output : program_.outputs) outputs_[output.value].push_back(&output);
    for (const Mail& mail : piece.sends) leaving_.insert(mail.name);
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
    if (known == shared_.end()) {
      const RuleTable& table = input.kind == InputKind::kParameter ? rules_.parameters
                               : is_accumulator(input.name)        ? rules_.gradients
                                                                   : table_;
      shared_[input.name] = {type, stored_layout(table, mesh_, type)};
    }
    if (is_accumulator(input.name)) accumulators_[input.value] = is_gradient(input.name);
    const Layout& layout = shared_[input.name].layout;
    define(input.value, add_input(input, local_type(type, layout)), layout);
  }

  Tensor add_input(const ProgramInput& input, Type type) {
    switch (input.kind) {
      case InputKind::kParameter:
        return builder_.parameter(input.name, std::move(type));
      case InputKind::kInput:
        return builder_.input(input.name, std::move(type));
      case InputKind::kState:
        return builder_.state(input.name, std::move(type));
      case InputKind::kCarried:
        return builder_.carried(input.name, std::move(type));
    }
    throw InternalError("unknown kind of input");
  }

  // The value in the layout `to`, converted once per layout.
  Sharded use(ValueId id, const Layout& to, bool gradient = false) {
    Slot& s = slot(id);
    MW_CHECK(s.made, "value %", id, " of ", program_.name, " is used before it is made");
    if (s.value.layout == to) return s.value;
    expect_rows_to_stay(s.value.layout, to);
    for (const Sharded& made : s.converted) {
      if (made.layout == to) return made;
    }
    Sharded made = gradient ? convert_gradient(s.value, to) : convert(s.value, to);
    // Once somebody needs the sum, everybody reads it: a partial is reduced once.
    if (to.partial.size() < s.value.layout.partial.size()) {
      s.converted.clear();
      s.value = made;
    } else {
      s.converted.push_back(made);
    }
    return made;
  }

  // Sums over ranks travel in the dtype that was asked for.
  Sharded convert_gradient(const Sharded& value, const Layout& to) const {
    const DType own = value.local.type().dtype;
    if (own != DType::kF32 || own == reduce_dtype_ || to.partial.size() == value.layout.partial.size()) return convert(value, to);
    Type global = value.global;
    global.dtype = reduce_dtype_;
    Sharded reduced = convert({cast(value.local, reduce_dtype_), global, value.layout}, to);
    return {cast(reduced.local, own), value.global, reduced.layout};
  }

  // Rows of experts are sorted within each rank.
  static void expect_rows_to_stay(const Layout& from, const Layout& to) {
    if (from.parts(kExpertRows) == to.parts(kExpertRows)) return;
    const auto shown = [](const Layout& layout) {
      Layout rows;
      rows.set(kExpertRows, layout.parts(kExpertRows));
      return rows.dims.empty() ? "whole" : to_string(rows);
    };
    throw UserError("the compute rules put rows of experts at (" + shown(to) + "), but they come from tokens at (" + shown(from) +
                    "); expected for each rule batch:AXIS a rule expert_rows:AXIS, in the same order");
  }

  // Where the value must go: outputs are delivered as soon as they are made.
  void deliver(ValueId id) {
    const auto at = outputs_.find(id);
    if (at == outputs_.end()) return;
    for (const ProgramOutput* output : at->second) {
      const Type& type = program_.type(id);
      Layout to;
      switch (output->kind) {
        case OutputKind::kResult:
          deliver_result(*output);
          continue;
        case OutputKind::kCarried:
          to = carried_layout(output->name, id);
          break;
        case OutputKind::kState:
          to = state_layout(output->name, id);
          break;
      }
      if (output->kind != OutputKind::kResult) shared_[output->name] = {type, to};
      builder_.output(output->name, use(id, to, is_gradient(output->name)).local, output->kind);
    }
    outputs_.erase(at);
  }

  // Whole. Rows of experts follow each other rank by rank.
  void deliver_result(const ProgramOutput& output) {
    Slot& s = slot(output.value);
    Layout kept;
    kept.set(kExpertRows, s.value.layout.parts(kExpertRows));
    const Sharded value = use(output.value, kept);
    builder_.output(output.name, convert(value, {}).local, OutputKind::kResult);
  }

  // As it is made; a partial is reduced into the layout that the compute table gives to its own dims. So is what another stage gets, which
  // knows that layout too.
  Layout carried_layout(const std::string& name, ValueId id) {
    const Layout& made = slot(id).value.layout;
    return made.partial.empty() && !leaving_.contains(name) ? made : stored_layout(table_, mesh_, program_.type(id));
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
        return std::any_of(entry.parts.begin(), entry.parts.end(), [&](const AxisPart& part) { return overlap(part, partial.part); });
      });
      if (!scattered) to.partial.push_back(partial);
    }
    return to;
  }

  void visit(const Op& op) {
    if (op.def->name == "sum_of_squares") return visit_sum_of_squares(op);
    if (op.def->view) return visit_view(op);
    if (adds_to_accumulator(op)) return visit_accumulation(op);
    if (is_decomposed(program_, op, table_, mesh_)) return visit_decomposed(op);
    const Signature signature = program_.signature(op);
    const std::vector<PartialOver> passed = partial_passed_on(op, signature);
    const Layout layout = op_layout(program_, op, table_, mesh_, passed);
    if (rules_.context_attention == ContextAttention::kRing && is_attention(op) && is_in_zigzag(layout)) return emit_ring(op, layout);
    emit(op, signature, layout, passed);
  }

  static bool is_in_zigzag(const Layout& layout) {
    const std::vector<AxisPart>& parts = layout.parts("seq");
    return parts.size() == 1 && is_zigzag("seq", parts[0].axis);
  }

  // Named expansion: keys lie as queries do, and so do their gradients.
  void emit_ring(const Op& op, Layout layout) {
    const std::vector<AxisPart> ring = layout.parts("seq");
    layout.set("kv_seq", ring);
    std::vector<Tensor> operands;
    for (const ValueId id : op.operands) operands.push_back(use(id, restricted(layout, program_.type(id))).local);
    const std::vector<Tensor> results = ring_attention(builder_, op, operands, ring[0]);
    for (size_t r = 0; r < results.size(); ++r) {
      const Type& type = program_.type(op.results[r]);
      Layout own = restricted(layout, type);
      for (const DimShards& entry : layout.dims) {
        const bool is_summed = entry.dim == "kv_seq" || (entry.dim == "seq" && type.has("kv_seq")) || type.has(entry.dim);
        for (const AxisPart& part : entry.parts) {
          if (!is_summed) own.partial.push_back({part, PartialKind::kSum});
        }
      }
      define(op.results[r], results[r], std::move(own));
    }
  }

  // The partial sums that the op hands through unreduced. Of ops that are linear in all operands together: those that every operand has
  // (what only some have is reduced first). Of ops that are linear in one operand: that operand's, when the others are whole.
  std::vector<PartialOver> partial_passed_on(const Op& op, const Signature& signature) {
    const auto partial = [&](size_t i) -> const std::vector<PartialOver>& { return slot(op.operands[i]).value.layout.partial; };
    const auto only_sums = [](std::vector<PartialOver> list) {
      std::erase_if(list, [](const PartialOver& p) { return p.kind != PartialKind::kSum; });
      return list;
    };
    if (op.operands.empty() || op.results.size() != 1) return {};
    if (op.def->jointly_linear && op.def->jointly_linear(signature)) {
      std::vector<PartialOver> shared = only_sums(partial(0));
      int64_t largest = 0;
      for (size_t i = 0; i < op.operands.size(); ++i) {
        std::erase_if(shared, [&](const PartialOver& p) { return std::find(partial(i).begin(), partial(i).end(), p) == partial(i).end(); });
        largest = std::max(largest, signature.operand(i).elements());
      }
      // What grows is reduced before it does: that moves less.
      return signature.result(0).elements() > largest ? std::vector<PartialOver>{} : shared;
    }
    if (!op.def->linear_in) return {};
    for (size_t i = 0; i < op.operands.size(); ++i) {
      if (partial(i).empty() || only_sums(partial(i)).size() != partial(i).size() || !op.def->linear_in(signature, i)) continue;
      bool others_whole = true;
      for (size_t j = 0; j < op.operands.size(); ++j) others_whole &= j == i || partial(j).empty();
      if (others_whole) return partial(i);
    }
    return {};
  }

  void emit(const Op& op, const Signature& signature, const Layout& layout, const std::vector<PartialOver>& passed) {
    std::vector<Tensor> operands;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      Layout to = restricted(layout, program_.type(op.operands[i]));
      const std::vector<PartialOver>& have = slot(op.operands[i]).value.layout.partial;
      if (std::all_of(passed.begin(), passed.end(),
                      [&](const PartialOver& p) { return std::find(have.begin(), have.end(), p) != have.end(); }))
        to.partial = passed;
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
        if (type.has(entry.dim) || is_carried(op, signature, layout, entry.dim, type)) continue;
        const PartialKind kind = op.def->partial ? op.def->partial(signature, entry.dim, r) : PartialKind::kSum;
        for (const AxisPart& part : entry.parts) {
          if (!is_split_by_expert(op, part)) own.partial.push_back({part, kind});
        }
      }
      define(op.results[r], results[r], std::move(own));
    }
  }

  // Whether a dim that the result lacks has its shards on another one there: rows that carry those of tokens, or the other way round.
  static bool is_carried(const Op& op, const Signature& signature, const Layout& layout, const std::string& dim, const Type& result) {
    for (const DimShards& other : layout.dims) {
      const std::vector<std::string> of_other = carried_by(op, signature, other.dim), of_dim = carried_by(op, signature, dim);
      if (result.has(other.dim) && (std::find(of_other.begin(), of_other.end(), dim) != of_other.end() ||
                                    std::find(of_dim.begin(), of_dim.end(), other.dim) != of_dim.end()))
        return true;
    }
    return false;
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
      if (std::any_of(entry.parts.begin(), entry.parts.end(), [&](const AxisPart& part) { return is_split_by_expert(op, part); })) continue;
      int64_t size = 0;
      for (const auto& [dim, whole] : loop_space(signature)) {
        if (dim == entry.dim) size = whole / total_size(entry.parts);
      }
      names.push_back(entry.dim);
      const int64_t ranks = total_size(entry.parts);
      if (!is_zigzag(entry.dim, entry.parts[0].axis)) {
        operands.push_back(shard_offset(builder_, part_names(entry.parts), ranks, size));
        continue;
      }
      if (entry.parts.size() > 1)
        throw UserError(program_.describe(op) + ": the rules shard " + entry.dim + " over " + entry.parts[0].axis + " and " +
                        entry.parts[1].axis + "; expected rows above '" + entry.dim + ":" + entry.parts[1].axis +
                        "' that give that axis to other dims, such as 'kv_heads:tensor part' and 'q_per_kv:tensor'");
      names.push_back(entry.dim);
      const std::vector<Tensor> halves = zigzag_offsets(builder_, part_names(entry.parts), ranks, size);
      operands.insert(operands.end(), halves.begin(), halves.end());
    }
    if (!names.empty()) attributes.set("offsets", std::move(names));
  }

  // rename, split, merge: the same bytes under other dims, so the layout follows the bytes.
  void visit_view(const Op& op) {
    const Signature signature = program_.signature(op);
    const auto [source, target] = view_layouts(signature.operand(0), signature.result(0), slot(op.operands[0]).value.layout);
    const Tensor operand = use(op.operands[0], source).local;
    Attributes attributes = op.attributes;
    localize(op, attributes, target);
    define(op.results[0], builder_.append1(*op.def, {operand}, std::move(attributes), Source()), target);
  }

  bool adds_to_accumulator(const Op& op) const { return op.def->name == "add" && accumulators_.count(op.operands[0]) > 0; }

  // accumulator + gradient: in the accumulator's layout, partial where that is.
  void visit_accumulation(const Op& op) {
    const Layout layout = slot(op.operands[0]).value.layout;
    const Sharded gradient = use(op.operands[1], layout, accumulators_.at(op.operands[0]));
    define(op.results[0], builder_.append1(*op.def, {slot(op.operands[0]).value.local, gradient.local}, op.attributes, Source()), layout);
  }

  // Named expansion: operands are grouped by the parts that shard them, each group's sum is reduced over those parts once.
  void visit_sum_of_squares(const Op& op) {
    std::vector<std::pair<std::vector<AxisPart>, std::vector<Tensor>>> groups;
    for (const ValueId id : op.operands) {
      const Sharded value = use(id, slot(id).value.layout.without_partial());
      std::vector<AxisPart> parts;
      for (const DimShards& entry : value.layout.dims) parts.insert(parts.end(), entry.parts.begin(), entry.parts.end());
      std::sort(parts.begin(), parts.end(),
                [](const AxisPart& a, const AxisPart& b) { return a.axis < b.axis || (a.axis == b.axis && a.stride > b.stride); });
      parts = joined_parts(parts);
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
    whole.declare_dims_of(program_);
    std::vector<Tensor> operands;
    for (size_t i = 0; i < op.operands.size(); ++i) operands.push_back(whole.input(std::to_string(i), program_.type(op.operands[i])));
    const std::vector<Tensor> results = op.def->decompose(operands, op.attributes);
    for (size_t i = 0; i < results.size(); ++i) whole.output(std::to_string(i), results[i]);
    const Program parts = whole.take();

    PiecePartitioner inner(parts, mesh_, rules_, table_, shared_, builder_);
    for (size_t i = 0; i < op.operands.size(); ++i) {
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
  PiecePartitioner(const Program& program, const Mesh& mesh, const Rules& rules, const RuleTable& table,
                   std::map<std::string, SharedValue>& shared, Builder& outer)
      : program_(program),
        mesh_(mesh),
        rules_(rules),
        table_(table),
        shared_(shared),
        own_builder_(""),
        builder_(outer),
        values_(program.values.size()) {}

  const Program& program_;
  const Mesh& mesh_;
  const Rules& rules_;
  const RuleTable& table_;
  DType reduce_dtype_ = DType::kF32;
  std::map<std::string, SharedValue>& shared_;
  Builder own_builder_;
  Builder& builder_;
  std::vector<Slot> values_;
  std::unordered_map<ValueId, std::vector<const ProgramOutput*>> outputs_;
  std::unordered_map<ValueId, bool> accumulators_;  // whether of gradients
  std::set<std::string> leaving_;                   // carried values that go to another stage
};

// When accumulator and gradient have one layout they are one buffer: the sum is formed in place.
void join_accumulators(Plan& plan) {
  std::map<std::string, std::string> renamed;
  for (const auto& [name, value] : plan.shared) {
    if (!starts_with(name, kAccumulatorPrefix)) continue;
    const std::string gradient = kGradientPrefix + name.substr(std::string(kAccumulatorPrefix).size());
    const auto at = plan.shared.find(gradient);
    if (at != plan.shared.end() && local_type(value.global_type, value.layout) == local_type(at->second.global_type, at->second.layout))
      renamed[name] = gradient;
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

Plan partition(Plan plan, const Mesh& mesh, const Rules& rules, DType reduce_dtype) {
  const auto table_of = [&](const Piece& piece) -> const RuleTable& { return piece.name == "update" ? rules.optimizer : rules.compute; };
  const std::map<std::string, Layout> fields = input_layouts(plan.pieces, mesh, table_of);
  for (Piece& piece : plan.pieces) {
    for (const ProgramInput& input : piece.program.inputs) {
      if (const auto at = fields.find(input.name); at != fields.end())
        plan.shared[input.name] = {piece.program.type(input.value), at->second};
    }
    piece.program = PiecePartitioner(piece, mesh, rules, table_of(piece), reduce_dtype, plan.shared).run();
    remove_dead_ops(piece.program);
  }
  join_accumulators(plan);
  return plan;
}

}  // namespace mw
