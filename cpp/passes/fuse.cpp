#include "passes/fuse.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ops/elementwise_chain.h"
#include "ops/ops.h"
#include "passes/edit.h"

namespace mw {
namespace {

constexpr size_t kLongestChain = 24;  // instructions; beyond it the values no longer fit the registers' blocks in L1
constexpr size_t kMostOperands = 12;

std::vector<std::vector<int32_t>> users_of(const Program& program) {
  std::vector<std::vector<int32_t>> users(program.values.size());
  for (size_t i = 0; i < program.ops.size(); ++i) {
    for (const ValueId id : program.ops[i].operands) {
      auto& list = users[static_cast<size_t>(id)];
      if (list.empty() || list.back() != static_cast<int32_t>(i)) list.push_back(static_cast<int32_t>(i));
    }
  }
  return users;
}

std::unordered_set<ValueId> written_states(const Program& program) {
  std::unordered_set<ValueId> written;
  const auto inputs = inputs_by_name(program);
  for (const ProgramOutput& output : program.outputs) {
    if (output.kind != OutputKind::kState) continue;
    if (const auto at = inputs.find(output.name); at != inputs.end()) written.insert(at->second->value);
  }
  return written;
}

// ---- accumulator + dot ----

// It may write its result over one operand more than it has: the accumulator.
bool takes_accumulator(const Op& op) { return op.def->in_place[0] == static_cast<int64_t>(op.operands.size()); }

struct AccumulatingDot {
  int32_t product;
  ValueId accumulator;
};

void fuse_accumulation(Program& program) {
  const auto users = users_of(program);
  const auto written = written_states(program);
  std::unordered_set<ValueId> outputs;
  for (const ProgramOutput& output : program.outputs) outputs.insert(output.value);
  const auto producer_of = [&](ValueId id) { return program.values[static_cast<size_t>(id)].producer; };
  // A written state, or a value made in front of the product that nobody reads behind the sum.
  const auto may_be_overwritten = [&](ValueId id, int32_t add, int32_t product) {
    if (written.count(id)) return true;
    // Of gradients alone: which values of the forward are read again is a matter of rematerialisation, and may not change their bits.
    const bool of_gradients = program.passes[static_cast<size_t>(program.ops[static_cast<size_t>(add)].pass)] == "differentiate";
    return of_gradients && producer_of(id) >= 0 && producer_of(id) < product && users[static_cast<size_t>(id)].back() == add &&
           !outputs.count(id);
  };
  std::unordered_map<int32_t, AccumulatingDot> dot_of_add;
  std::unordered_set<int32_t> absorbed;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (op.def->name != "add" || program.type(op.operands[0]) != program.type(op.operands[1])) continue;
    for (const auto& [accumulator, product] : {std::pair{op.operands[0], op.operands[1]}, std::pair{op.operands[1], op.operands[0]}}) {
      const int32_t producer = producer_of(product), add = static_cast<int32_t>(i);
      if (producer < 0 || !takes_accumulator(program.ops[static_cast<size_t>(producer)]) ||
          users[static_cast<size_t>(product)].size() != 1 || outputs.count(product) || !may_be_overwritten(accumulator, add, producer))
        continue;
      dot_of_add[add] = {producer, accumulator};
      absorbed.insert(producer);
      break;
    }
  }
  if (dot_of_add.empty()) return;
  Builder builder(program.name);
  Copier copier(program, builder);
  copier.copy_inputs();
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (absorbed.count(static_cast<int32_t>(i))) continue;
    const auto at = dot_of_add.find(static_cast<int32_t>(i));
    if (at == dot_of_add.end()) {
      copier.copy(op);
      continue;
    }
    const Op& product = program.ops[static_cast<size_t>(at->second.product)];
    copier.follow(product);
    Attributes attributes = product.attributes;
    attributes.set("accumulate", true);
    std::vector<Tensor> operands = copier.operands(product);
    operands.push_back(copier[at->second.accumulator]);
    copier.map(op.results[0], builder.append1(*product.def, operands, std::move(attributes), Source()));
  }
  copier.copy_outputs();
  program = builder.take();
}

// ---- elementwise chains ----

class ChainFuser {
 public:
  explicit ChainFuser(const Program& program)
      : program_(program), users_(users_of(program)), written_(written_states(program)), joined_into_(program.ops.size(), -1) {
    for (const ProgramOutput& output : program.outputs) outputs_.insert(output.value);
  }

  Program run() {
    for (size_t i = 0; i < program_.ops.size(); ++i) choose(i);
    Builder builder(program_.name);
    Copier copier(program_, builder);
    copier.copy_inputs();
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      if (joined_into_[i] >= 0) continue;
      if (!members_.count(static_cast<int32_t>(i)) || !emit_chain(builder, copier, static_cast<int32_t>(i))) copier.copy(op);
    }
    copier.copy_outputs();
    return builder.take();
  }

 private:
  static bool is_scalar_constant(const Program& program, const Op& op) {
    return op.def->name == "constant" && program.type(op.results[0]) == Type{DType::kF32, {}};
  }
  bool may_join(const Op& op) const {
    return op.results.size() == 1 && op.def->elementwise && fits_chain(*op.def, op.attributes) && !op.operands.empty();
  }

  // Op i joins the only op that reads its result when both run over the same dims.
  void choose(size_t i) {
    const Op& op = program_.ops[i];
    if (!may_join(op)) return;
    auto& own = members_[static_cast<int32_t>(i)];
    own.push_back(static_cast<int32_t>(i));
    for (const ValueId id : op.operands) {
      const int32_t producer = program_.values[static_cast<size_t>(id)].producer;
      if (producer < 0 || !members_.count(producer) || joined_into_[static_cast<size_t>(producer)] >= 0) continue;
      if (users_[static_cast<size_t>(id)].size() != 1 || outputs_.count(id) || program_.type(id).dims != program_.type(op.results[0]).dims)
        continue;
      const auto& group = members_[producer];
      if (own.size() + group.size() > kLongestChain || operands_of(own, group) > kMostOperands || reads_written_state(group)) continue;
      own.insert(own.begin(), group.begin(), group.end());
      std::sort(own.begin(), own.end());
      joined_into_[static_cast<size_t>(producer)] = static_cast<int32_t>(i);
    }
  }

  size_t operands_of(const std::vector<int32_t>& a, const std::vector<int32_t>& b) const {
    std::unordered_set<ValueId> distinct;
    for (const auto* group : {&a, &b}) {
      for (const int32_t i : *group)
        distinct.insert(program_.ops[static_cast<size_t>(i)].operands.begin(), program_.ops[static_cast<size_t>(i)].operands.end());
    }
    return distinct.size();
  }

  // An op that reads a state's old version must not move behind the op that writes the new one.
  bool reads_written_state(const std::vector<int32_t>& group) const {
    return std::any_of(group.begin(), group.end(), [&](int32_t i) {
      const auto& operands = program_.ops[static_cast<size_t>(i)].operands;
      return std::any_of(operands.begin(), operands.end(), [&](ValueId id) { return written_.count(id) > 0; });
    });
  }

  bool emit_chain(Builder& builder, Copier& copier, int32_t last) {
    const std::vector<int32_t>& group = members_[last];
    std::vector<ChainInstruction> code;
    std::vector<Tensor> operands;
    std::unordered_map<ValueId, ChainArgument> arguments;
    bool has_constant = false;
    const auto argument = [&](ValueId id) {
      if (const auto at = arguments.find(id); at != arguments.end()) return at->second;
      const int32_t producer = program_.values[static_cast<size_t>(id)].producer;
      if (producer >= 0 && is_scalar_constant(program_, program_.ops[static_cast<size_t>(producer)])) {
        has_constant = true;
        code.push_back({.def = program_.ops[static_cast<size_t>(producer)].def,
                        .arguments = {},
                        .attributes = program_.ops[static_cast<size_t>(producer)].attributes});
        return arguments[id] = {true, static_cast<int>(code.size()) - 1};
      }
      operands.push_back(copier[id]);
      return arguments[id] = {false, static_cast<int>(operands.size()) - 1};
    };
    for (const int32_t i : group) {
      const Op& op = program_.ops[static_cast<size_t>(i)];
      ChainInstruction instruction{.def = op.def, .arguments = {}, .attributes = op.attributes};
      for (const ValueId id : op.operands) instruction.arguments.push_back(argument(id));
      code.push_back(std::move(instruction));
      arguments[op.results[0]] = {true, static_cast<int>(code.size()) - 1};
    }
    if (group.size() == 1 && !has_constant) return false;
    if (operands.empty()) {  // arithmetic on constants alone
      for (const int32_t i : group) copier.copy(program_.ops[static_cast<size_t>(i)]);
      return true;
    }
    const Op& op = program_.ops[static_cast<size_t>(last)];
    copier.follow(op);
    copier.map(op.results[0], elementwise_chain(builder, operands, code, {static_cast<int64_t>(code.size()) - 1}).at(0));
    return true;
  }

  const Program& program_;
  std::vector<std::vector<int32_t>> users_;
  std::unordered_set<ValueId> written_, outputs_;
  std::vector<int32_t> joined_into_;                           // op that took this op in
  std::unordered_map<int32_t, std::vector<int32_t>> members_;  // ops of the chain that ends in this op
};

}  // namespace

Plan fuse(Plan plan) {
  for (Piece& piece : plan.pieces) {
    fuse_accumulation(piece.program);
    piece.program = ChainFuser(piece.program).run();
    remove_dead_ops(piece.program);
  }
  return plan;
}

}  // namespace mw
