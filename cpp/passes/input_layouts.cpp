#include "passes/input_layouts.h"

#include <optional>

#include "passes/op_layout.h"

namespace mw {
namespace {

// What both layouts shard alike, major first.
Layout common(const Layout& a, const Layout& b) {
  Layout both;
  for (const DimShards& entry : a.dims) {
    const std::vector<AxisPart>& other = b.parts(entry.dim);
    std::vector<AxisPart> prefix;
    for (size_t i = 0; i < entry.parts.size() && i < other.size() && entry.parts[i] == other[i]; ++i) prefix.push_back(entry.parts[i]);
    both.set(entry.dim, std::move(prefix));
  }
  return both;
}

class Demands {
 public:
  Demands(const Program& program, const RuleTable& table, const Mesh& mesh)
      : program_(program), table_(table), mesh_(mesh), wanted_(program.values.size()) {}

  void collect(std::map<std::string, Layout>& by_name) {
    find_fields();
    for (size_t i = program_.ops.size(); i-- > 0;) visit(program_.ops[i]);
    for (const ProgramInput& input : program_.inputs) {
      const std::optional<Layout>& wanted = wanted_[static_cast<size_t>(input.value)];
      if (input.kind != InputKind::kInput || !wanted) continue;
      const auto [at, added] = by_name.emplace(input.name, *wanted);
      if (!added) at->second = common(at->second, *wanted);
    }
  }

 private:
  bool is_field(ValueId id) const { return field_[static_cast<size_t>(id)]; }

  // Inputs and views of them.
  void find_fields() {
    field_.assign(program_.values.size(), false);
    for (const ProgramInput& input : program_.inputs) field_[static_cast<size_t>(input.value)] = input.kind == InputKind::kInput;
    for (const Op& op : program_.ops) {
      if (op.def->view && is_field(op.operands[0])) field_[static_cast<size_t>(op.results[0])] = true;
    }
  }

  void visit(const Op& op) {
    if (op.def->view) {
      const std::optional<Layout>& wanted = wanted_[static_cast<size_t>(op.results[0])];
      if (is_field(op.operands[0]) && wanted)
        want(op.operands[0], view_layouts(program_.type(op.results[0]), program_.type(op.operands[0]), *wanted).to);
      return;
    }
    std::optional<Layout> layout;
    for (const ValueId id : op.operands) {
      if (!is_field(id)) continue;
      if (!layout) layout = is_decomposed(program_, op, table_, mesh_) ? whole_loop_layout(op) : op_layout(program_, op, table_, mesh_);
      want(id, restricted(*layout, program_.type(id)));
    }
  }

  // The parts of a decomposed op shard what the op itself could not.
  Layout whole_loop_layout(const Op& op) const {
    Type space;
    for (const auto& [name, size] : loop_space(program_.signature(op))) space.dims.push_back({name, size});
    return stored_layout(table_, mesh_, space);
  }

  void want(ValueId id, const Layout& layout) {
    std::optional<Layout>& wanted = wanted_[static_cast<size_t>(id)];
    wanted = wanted ? common(*wanted, layout) : layout;
  }

  const Program& program_;
  const RuleTable& table_;
  const Mesh& mesh_;
  std::vector<bool> field_;
  std::vector<std::optional<Layout>> wanted_;
};

}  // namespace

std::map<std::string, Layout> input_layouts(const std::vector<Piece>& pieces, const Mesh& mesh,
                                            const std::function<const RuleTable&(const Piece&)>& table_of) {
  std::map<std::string, Layout> by_name;
  for (const Piece& piece : pieces) Demands(piece.program, table_of(piece), mesh).collect(by_name);
  return by_name;
}

}  // namespace mw
