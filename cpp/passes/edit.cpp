#include "passes/edit.h"

#include <algorithm>
#include <queue>

#include "base/error.h"

namespace mw {
namespace {

void renumber_producers(Program& program) {
  for (size_t i = 0; i < program.ops.size(); ++i) {
    for (const ValueId id : program.ops[i].results) program.values[static_cast<size_t>(id)].producer = static_cast<int32_t>(i);
  }
}

}  // namespace

void replace_uses(Program& program, ValueId from, ValueId to) {
  for (Op& op : program.ops) std::replace(op.operands.begin(), op.operands.end(), from, to);
  for (ProgramOutput& output : program.outputs) {
    if (output.value == from) output.value = to;
  }
}

void order_by_dependencies(Program& program) {
  const size_t n = program.ops.size();
  std::vector<int32_t> waiting(n, 0);
  std::vector<std::vector<int32_t>> users(n);
  for (size_t i = 0; i < n; ++i) {
    for (const ValueId id : program.ops[i].operands) {
      const int32_t producer = program.values[static_cast<size_t>(id)].producer;
      if (producer < 0) continue;
      ++waiting[i];
      users[static_cast<size_t>(producer)].push_back(static_cast<int32_t>(i));
    }
  }
  std::priority_queue<int32_t, std::vector<int32_t>, std::greater<>> ready;
  for (size_t i = 0; i < n; ++i) {
    if (waiting[i] == 0) ready.push(static_cast<int32_t>(i));
  }
  std::vector<Op> ordered;
  ordered.reserve(n);
  while (!ready.empty()) {
    const int32_t next = ready.top();
    ready.pop();
    ordered.push_back(std::move(program.ops[static_cast<size_t>(next)]));
    for (const int32_t user : users[static_cast<size_t>(next)]) {
      if (--waiting[static_cast<size_t>(user)] == 0) ready.push(user);
    }
  }
  MW_CHECK(ordered.size() == n, "the ops of ", program.name, " depend on each other in a circle");
  program.ops = std::move(ordered);
  renumber_producers(program);
}

void remove_dead_ops(Program& program) {
  std::vector<bool> alive(program.values.size(), false);
  for (const ProgramOutput& output : program.outputs) alive[static_cast<size_t>(output.value)] = true;
  std::vector<bool> keep(program.ops.size(), false);
  for (size_t i = program.ops.size(); i-- > 0;) {
    const Op& op = program.ops[i];
    for (const ValueId id : op.results) keep[i] = keep[i] || alive[static_cast<size_t>(id)];
    if (!keep[i]) continue;
    for (const ValueId id : op.operands) alive[static_cast<size_t>(id)] = true;
  }
  // Values of dropped ops go too: ids are given anew, in the order of their makers.
  std::vector<ValueId> renamed(program.values.size(), kNoValue);
  std::deque<Value> values;
  const auto move_value = [&](ValueId& id) {
    ValueId& to = renamed[static_cast<size_t>(id)];
    if (to == kNoValue) {
      to = static_cast<ValueId>(values.size());
      values.push_back(std::move(program.values[static_cast<size_t>(id)]));
    }
    id = to;
  };
  for (ProgramInput& input : program.inputs) move_value(input.value);
  std::vector<Op> ops;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    if (!keep[i]) continue;
    Op& op = program.ops[i];
    for (ValueId& id : op.operands) move_value(id);
    for (ValueId& id : op.results) move_value(id);
    ops.push_back(std::move(op));
  }
  for (ProgramOutput& output : program.outputs) move_value(output.value);
  program.ops = std::move(ops);
  program.values = std::move(values);
  renumber_producers(program);
}

void remove_unused_inputs(Program& program) {
  std::vector<bool> used(program.values.size(), false);
  for (const Op& op : program.ops) {
    for (const ValueId id : op.operands) used[static_cast<size_t>(id)] = true;
  }
  for (const ProgramOutput& output : program.outputs) used[static_cast<size_t>(output.value)] = true;
  std::erase_if(program.inputs, [&](const ProgramInput& input) { return !used[static_cast<size_t>(input.value)]; });
}

Tensor Copier::operator[](ValueId from) const {
  const ValueId to = map_.at(static_cast<size_t>(from));
  MW_CHECK(to != kNoValue, "value %", from, " of ", from_.name, " was not copied");
  return to_.tensor(to);
}

std::vector<Tensor> Copier::operands(const Op& op) const {
  std::vector<Tensor> tensors;
  tensors.reserve(op.operands.size());
  for (const ValueId id : op.operands) tensors.push_back((*this)[id]);
  return tensors;
}

void Copier::copy_inputs() {
  for (const ProgramInput& input : from_.inputs) {
    const Type& type = from_.type(input.value);
    switch (input.kind) {
      case InputKind::kParameter:
        map(input.value, to_.parameter(input.name, type));
        break;
      case InputKind::kInput:
        map(input.value, to_.input(input.name, type));
        break;
      case InputKind::kState:
        map(input.value, to_.state(input.name, type));
        break;
      case InputKind::kCarried:
        map(input.value, to_.carried(input.name, type));
        break;
    }
  }
}

void Copier::copy_outputs() {
  for (const ProgramOutput& output : from_.outputs) to_.output(output.name, (*this)[output.value], output.kind);
}

void Copier::follow(const Op& op) {
  to_.set_origin(from_, op);
  to_.set_pass(from_.passes[static_cast<size_t>(op.pass)]);
}

void Copier::copy(const Op& op) {
  follow(op);
  const std::vector<Tensor> results = to_.append(*op.def, operands(op), op.attributes, Source());
  for (size_t i = 0; i < results.size(); ++i) map(op.results[i], results[i]);
}

}  // namespace mw
