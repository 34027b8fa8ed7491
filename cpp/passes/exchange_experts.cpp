#include "passes/exchange_experts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "ir/dim_names.h"
#include "ir/layout.h"
#include "ops/ops.h"
#include "passes/edit.h"

namespace mw {
namespace {

constexpr int64_t kRowsStep = 8;  // bounds are multiples

bool has_rows(const Type& type) { return type.has(kExpertRows); }

bool is_one_of(const Op& op, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), op.def->name) != names.end();
}
// Ops between tokens and the rows of their own rank.
bool makes_rows(const Op& op) { return is_one_of(op, {"to_expert_rows", "expert_of_rows"}); }
bool ends_rows(const Op& op) { return is_one_of(op, {"combine", "from_expert_rows", "expert_row_products"}); }
bool is_grouped(const Op& op) { return is_one_of(op, {"grouped_dot", "grouped_dot_weights"}); }
bool is_indexed(const Op& op) { return is_one_of(op, {"gather_rows", "scatter_rows"}) && op.attributes.text("dim") == "experts"; }

// The axes that a compute table gives to a dim, whole ones only, in the order of its rows.
std::vector<AxisPart> axes_of(const RuleTable& table, const Mesh& mesh, std::string_view dim) {
  std::vector<AxisPart> axes;
  for (const RuleRow& row : table) {
    const int64_t size = mesh.size_of(row.axis);
    const bool known = std::any_of(axes.begin(), axes.end(), [&](const AxisPart& part) { return part.axis == row.axis; });
    if (row.dim == dim && size > 1 && !row.part && !known) axes.push_back({row.axis, size, 1});
  }
  return axes;
}

class Exchanger {
 public:
  Exchanger(const Program& program, const Mesh& mesh, const RuleTable& table, std::vector<AxisPart> axes, double factor,
            ExpertRowsPlanned& planned)
      : program_(program),
        mesh_(mesh),
        table_(table),
        axes_(std::move(axes)),
        factor_(factor),
        planned_(planned),
        builder_(program.name),
        values_(program.values.size()) {
    builder_.declare_dims_of(program);
    find_where_read();
    plan_room();
  }

  Program run() {
    for (const ProgramInput& input : program_.inputs) declare(input);
    for (const Op& op : program_.ops) {
      builder_.set_origin(program_, op);
      builder_.set_pass(program_.passes[static_cast<size_t>(op.pass)]);
      visit(op);
    }
    for (const ProgramOutput& output : program_.outputs) {
      if (const Op* op = producer(output.value)) builder_.set_origin(program_, *op);
      builder_.output(output.name, own(output.value), output.kind);  // rows as one rank would have them
    }
    return builder_.take();
  }

 private:
  // A value in the new Program: as it was, or of rows of experts also, or only, on the ranks of the experts.
  struct Rows {
    std::optional<Tensor> own, sent;
    ValueId indices = kNoValue;  // whose choices the rows are
    bool read_sent = false;      // by some op that works on the ranks of the experts
  };

  Rows& value(ValueId id) { return values_[static_cast<size_t>(id)]; }
  const Op* producer(ValueId id) const {
    const int32_t at = program_.values[static_cast<size_t>(id)].producer;
    return at < 0 ? nullptr : &program_.ops[static_cast<size_t>(at)];
  }

  // Rows that are looked up only to be combined, or were sent out only to be summed by expert, need not travel.
  void find_where_read() {
    std::vector<std::vector<const Op*>> readers(program_.values.size());
    for (const Op& op : program_.ops) {
      for (const ValueId id : op.operands) readers[static_cast<size_t>(id)].push_back(&op);
    }
    for (const Op& op : program_.ops) {
      if (op.def->name == "scatter_rows" && is_indexed(op)) {
        const Op *from = producer(op.operands[0]), *cast = from;
        if (from && from->def->name == "cast" && readers[static_cast<size_t>(op.operands[0])].size() == 1)
          from = producer(cast->operands[0]);
        if (!from || from->def->name != "to_expert_rows") continue;
        stays_.insert({&op, cast});
      } else if (op.def->name == "gather_rows" && is_indexed(op)) {
        const auto& list = readers[static_cast<size_t>(op.results[0])];
        if (!list.empty() && std::all_of(list.begin(), list.end(), [](const Op* reader) { return ends_rows(*reader); })) stays_.insert(&op);
      } else if (makes_rows(op)) {
        experts_[op.def->name == "to_expert_rows" ? op.operands[1] : op.operands[0]] = op.attributes.integer("experts");
      }
    }
    for (const Op& op : program_.ops) {
      if (ends_rows(op) || makes_rows(op) || stays(op)) continue;
      for (const ValueId id : op.operands) value(id).read_sent = true;
    }
  }
  bool stays(const Op& op) const { return stays_.contains(&op); }

  void declare(const ProgramInput& input) {
    const Type& type = program_.type(input.value);
    if (has_rows(type)) throw UserError("input '" + input.name + "' is " + to_string(type) + "; rows of experts are made by dispatch only");
    value(input.value).own = input.kind == InputKind::kParameter ? builder_.parameter(input.name, type)
                             : input.kind == InputKind::kInput   ? builder_.input(input.name, type)
                             : input.kind == InputKind::kState   ? builder_.state(input.name, type)
                                                                 : builder_.carried(input.name, type);
  }

  void visit(const Op& op) {
    const Signature signature = program_.signature(op);
    const auto has = [](const std::vector<const Type*>& types) {
      return std::any_of(types.begin(), types.end(), [](const Type* type) { return has_rows(*type); });
    };
    const bool on_rows = has(signature.operands) || has(signature.results);
    if (!on_rows || makes_rows(op) || ends_rows(op) || stays(op)) {
      keep(op);
    } else {
      work_on_sent(op);
    }
  }

  // On the rank of the tokens.
  void keep(const Op& op) {
    std::vector<Tensor> operands;
    ValueId indices = op.def->name == "to_expert_rows" ? op.operands[1] : op.def->name == "expert_of_rows" ? op.operands[0] : kNoValue;
    for (const ValueId id : op.operands) {
      operands.push_back(own(id));
      if (indices == kNoValue) indices = value(id).indices;
    }
    const std::vector<Tensor> results = builder_.append(*op.def, operands, op.attributes, Source());
    for (size_t i = 0; i < results.size(); ++i) {
      Rows& made = value(op.results[i]);
      made.own = results[i];
      if (!has_rows(results[i].type())) continue;
      made.indices = indices;
      if (op.def->name == "expert_of_rows") row_experts_.emplace(indices, results[i]);
      if (made.read_sent) sent(op.results[i]);  // here, where the op's scope says what is sent
    }
  }

  void work_on_sent(const Op& op) {
    check_may_touch(op);
    const Signature signature = program_.signature(op);
    std::vector<Tensor> operands;
    ValueId indices = kNoValue;
    for (const ValueId id : op.operands) {
      const bool rows = has_rows(program_.type(id));
      operands.push_back(rows ? sent(id) : own(id));
      if (rows && indices == kNoValue) indices = value(id).indices;
    }
    Attributes attributes = op.attributes;
    if (attributes.find("type")) {
      Type type = parse_type(attributes.text("type"));
      for (Dim& dim : type.dims) {
        if (dim.name == kExpertRows) dim.size = room_for(dim.size).bound * num_shards();
      }
      attributes.set("type", to_string(type));
    }
    if (is_grouped(op) || is_indexed(op)) {
      std::vector<std::string> names;
      for (const AxisPart& axis : axes_) names.push_back(axis.axis);
      attributes.set(kExpertAxes, std::move(names));
      if (is_grouped(op)) attributes.set("filled", room_for(signature.operand(0).size_of(kExpertRows)).filled);
    }
    const std::vector<Tensor> results = builder_.append(*op.def, operands, std::move(attributes), Source());
    for (size_t i = 0; i < results.size(); ++i) {
      Rows& made = value(op.results[i]);
      if (has_rows(results[i].type())) {
        made.sent = results[i];
        made.indices = indices;
      } else {
        made.own = results[i];
      }
    }
  }

  void check_may_touch(const Op& op) const {
    if (is_grouped(op) || is_indexed(op)) return;
    const Signature signature = program_.signature(op);
    const bool mapped = !op.def->role || op.def->role(signature, kExpertRows).use == DimUse::kMapped;
    bool both = false;
    for (const Type* type : signature.operands) both = both || type->has("experts");
    for (const Type* type : signature.results) both = both || type->has("experts");
    if (mapped && !both) return;
    throw UserError(program_.describe(op) + ": rows of experts are spread over ranks by a run's choices (mesh axis '" + axes_[0].axis +
                    "'); expected an elementwise op, grouped_dot, or gather_rows and scatter_rows along 'experts'");
  }

  Tensor own(ValueId id) {
    Rows& v = value(id);
    if (!v.own) {
      MW_CHECK(v.sent, "value %", id, " of ", program_.name, " is used before it is made");
      MW_CHECK(v.indices != kNoValue, "rows of nobody's choice");
      const Routed& routed = routed_by(v.indices);
      v.own = expert_return(*v.sent, routed.counts, routed.exchange, program_.type(id).size_of(kExpertRows));
    }
    return *v.own;
  }

  Tensor sent(ValueId id) {
    Rows& v = value(id);
    if (!v.sent) {
      MW_CHECK(v.own && v.indices != kNoValue, "rows of nobody's choice");
      const Op* op = producer(id);
      const Routed& routed = routed_by(v.indices);
      v.sent = op && op->def->name == "expert_of_rows" ? routed.experts : expert_dispatch(*v.own, routed.counts, routed.exchange);
    }
    return *v.sent;
  }

  struct Routed {
    ExpertExchange exchange;
    Tensor counts, experts;
  };

  const Routed& routed_by(ValueId indices) {
    const auto known = routed_.find(indices);
    if (known != routed_.end()) return known->second;
    const int64_t experts = experts_.at(indices);
    read_table({{"experts", axes_[0].axis}}, mesh_, {{"experts", experts}}, {true});  // UserError when it does not divide
    Routed routed;
    routed.exchange = {.axes = part_names(axes_), .parts = total_size(axes_), .experts = experts};
    if (experts % routed.exchange.parts != 0) {
      throw UserError(std::to_string(experts) + " experts do not divide over the " + std::to_string(routed.exchange.parts) +
                      " ranks of the mesh axes that the compute rules give to 'experts'");
    }
    routed.exchange.rows = room_for(program_.type(indices).elements()).bound * num_shards();
    routed.exchange.counts = 2 * experts * num_shards();
    if (!row_experts_.contains(indices)) row_experts_.emplace(indices, expert_of_rows(own(indices), experts));
    routed.counts = expert_counts(row_experts_.at(indices), routed.exchange);
    routed.experts = dispatched_experts(routed.counts, routed.exchange);
    return routed_.emplace(indices, std::move(routed)).first->second;
  }

  // Room for the rows of so many choices. Values of rows are told apart by their number alone, so layers that agree in it share the room.
  struct Room {
    int64_t bound;  // of one rank
    double filled;  // on average
  };

  int64_t num_shards() const { return total_size(axes_of(table_, mesh_, kExpertRows)); }
  const Room& room_for(int64_t choices) const { return rooms_.at(choices); }

  void plan_room() {
    const int64_t parts = total_size(axes_);
    for (const auto& [indices, experts] : experts_) {
      const Type& type = program_.type(indices);
      const int64_t choices = type.elements(), k = type.dims.back().size, ranks = num_shards();
      ExpertRowsPlanned rows{.mean = (choices + ranks - 1) / ranks};
      rows.worst = rows.mean / k * parts * std::min(k, std::max<int64_t>(1, experts / parts));
      const auto wanted = static_cast<int64_t>(std::ceil(std::max(1.0, factor_) * static_cast<double>(rows.mean)));
      rows.bound = std::min(rows.worst, (wanted + kRowsStep - 1) / kRowsStep * kRowsStep);
      if (rows.bound > planned_.bound || (rows.bound == planned_.bound && rows.worst > planned_.worst)) planned_ = rows;
      Room& room = rooms_[choices];
      room.bound = std::max(room.bound, rows.bound);
      room.filled = static_cast<double>(rows.mean) / static_cast<double>(std::max<int64_t>(1, room.bound));
    }
  }

  const Program& program_;
  const Mesh& mesh_;
  const RuleTable& table_;
  const std::vector<AxisPart> axes_;
  const double factor_;
  ExpertRowsPlanned& planned_;
  Builder builder_;
  std::vector<Rows> values_;
  std::set<const Op*> stays_;           // ops on rows that work on the rank of the tokens
  std::map<ValueId, int64_t> experts_;  // by indices
  std::map<ValueId, Tensor> row_experts_;
  std::map<ValueId, Routed> routed_;
  std::map<int64_t, Room> rooms_;  // by choices
};

}  // namespace

Program exchange_experts(Program program, const Mesh& mesh, const Rules& rules, double factor, ExpertRowsPlanned& planned) {
  // In the order of the rows' axes, in which partition lays out the experts too.
  std::vector<AxisPart> axes = axes_of(rules.compute, mesh, kExpertRows);
  const std::vector<AxisPart> of_experts = axes_of(rules.compute, mesh, "experts");
  std::erase_if(axes, [&](const AxisPart& axis) { return std::find(of_experts.begin(), of_experts.end(), axis) == of_experts.end(); });
  const bool any = std::any_of(program.ops.begin(), program.ops.end(), makes_rows);
  if (axes.empty() || !any) return program;
  return Exchanger(program, mesh, rules.compute, std::move(axes), factor, planned).run();
}

}  // namespace mw
