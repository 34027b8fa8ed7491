#include <unordered_map>

#include "base/error.h"
#include "ir/program.h"

namespace mw {
namespace {

[[noreturn]] void broken(std::string_view after, const std::string& where, const std::string& what) {
  throw InternalError("after " + std::string(after) + ": " + where + ": " + what);
}

void verify_values(const Program& program, std::string_view after) {
  std::vector<bool> made(program.values.size(), false);
  const auto make = [&](ValueId id, const std::string& where) {
    if (id < 0 || static_cast<size_t>(id) >= made.size()) broken(after, where, "value %" + std::to_string(id) + " does not exist");
    if (made[static_cast<size_t>(id)]) broken(after, where, "value %" + std::to_string(id) + " is made twice");
    made[static_cast<size_t>(id)] = true;
  };
  const auto use = [&](ValueId id, const std::string& where) {
    if (id < 0 || static_cast<size_t>(id) >= made.size() || !made[static_cast<size_t>(id)]) {
      broken(after, where, "value %" + std::to_string(id) + " is used before it is made");
    }
  };
  for (const ProgramInput& input : program.inputs) make(input.value, "input '" + input.name + "'");
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (!op.def) broken(after, "op " + std::to_string(i), "it has no definition");
    for (const ValueId id : op.operands) {
      if (id < 0 || static_cast<size_t>(id) >= made.size() || !made[static_cast<size_t>(id)]) use(id, program.describe(op));
    }
    for (const ValueId id : op.results) {
      make(id, program.describe(op));
      if (program.values[static_cast<size_t>(id)].producer != static_cast<int32_t>(i)) {
        broken(after, program.describe(op), "value %" + std::to_string(id) + " names another producer");
      }
    }
  }
  for (const ProgramOutput& output : program.outputs) use(output.value, "output '" + output.name + "'");
}

void verify_types(const Program& program, std::string_view after) {
  for (const Op& op : program.ops) {
    Signature signature = program.signature(op);
    signature.results.clear();
    std::vector<Type> types;
    try {
      types = infer_types(*op.def, signature);
    } catch (const UserError& error) {
      broken(after, program.describe(op), error.what());
    }
    if (types.size() != op.results.size()) {
      broken(after, program.describe(op),
             "it has " + std::to_string(op.results.size()) + " results where its rule makes " + std::to_string(types.size()));
    }
    for (size_t i = 0; i < types.size(); ++i) {
      if (types[i] != program.type(op.results[i])) {
        broken(after, program.describe(op),
               "result " + std::to_string(i) + " is " + to_string(program.type(op.results[i])) + " where its rule makes " +
                   to_string(types[i]));
      }
    }
  }
}

// A state is written in place by the op that makes its new version: its old version must not be read by a later op.
void verify_states(const Program& program, std::string_view after) {
  std::unordered_map<ValueId, int32_t> written;  // old version -> index of the op that makes the new one
  const auto inputs = inputs_by_name(program);
  for (const ProgramOutput& output : program.outputs) {
    if (output.kind != OutputKind::kState) continue;
    const auto at = inputs.find(output.name);
    const ProgramInput* input = at == inputs.end() ? nullptr : at->second;
    if (!input || input->value == output.value) continue;
    if (input->kind != InputKind::kState && input->kind != InputKind::kParameter) {
      broken(after, "output '" + output.name + "'", "only states and parameters are written");
    }
    if (program.type(input->value) != program.type(output.value)) {
      broken(after, "output '" + output.name + "'",
             "the new version is " + to_string(program.type(output.value)) + ", the old one " + to_string(program.type(input->value)));
    }
    written[input->value] = program.values[static_cast<size_t>(output.value)].producer;
  }
  if (written.empty()) return;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    for (const ValueId id : program.ops[i].operands) {
      const auto at = written.find(id);
      if (at != written.end() && static_cast<int32_t>(i) > at->second) {
        broken(after, program.describe(program.ops[i]), "it reads the old version of a state after the new one was written");
      }
    }
  }
}

}  // namespace

void verify(const Program& program, std::string_view after) {
  verify_values(program, after);
  verify_types(program, after);
  verify_states(program, after);
}

}  // namespace mw
