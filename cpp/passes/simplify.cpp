#include "passes/simplify.h"

#include <string>
#include <unordered_map>

#include "passes/edit.h"

namespace mw {
namespace {

// Which ops are joined when equal: those that only move or convert. Joining arithmetic would lengthen lives of large values for little.
bool may_join(const Op& op) {
  const std::string_view name = op.def->name;
  return op.def->view || op.def->collective || op.operands.empty() || name == "cast" || name == "reorder" || name == "to_expert_rows";
}

std::string key_of(const Program& program, const Op& op) {
  std::string key(op.def->name);
  for (const ValueId id : op.operands) key += " " + std::to_string(id);
  key += to_string(op.attributes);
  // A constant of one scope and of another are the same number.
  if (op.operands.empty()) key += to_string(program.type(op.results[0]));
  return key;
}

}  // namespace

void simplify(Program& program) {
  remove_dead_ops(program);
  std::unordered_map<std::string, size_t> made;
  std::vector<ValueId> same(program.values.size());
  for (size_t i = 0; i < same.size(); ++i) same[i] = static_cast<ValueId>(i);
  bool joined = false;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    Op& op = program.ops[i];
    for (ValueId& id : op.operands) id = same[static_cast<size_t>(id)];
    if (!may_join(op)) continue;
    const auto [at, added] = made.emplace(key_of(program, op), i);
    if (added) continue;
    joined = true;
    for (size_t r = 0; r < op.results.size(); ++r) same[static_cast<size_t>(op.results[r])] = program.ops[at->second].results[r];
  }
  for (ProgramOutput& output : program.outputs) output.value = same[static_cast<size_t>(output.value)];
  if (joined) remove_dead_ops(program);
}

Plan simplify(Plan plan) {
  for (Piece& piece : plan.pieces) simplify(piece.program);
  return plan;
}

}  // namespace mw
