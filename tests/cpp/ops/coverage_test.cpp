// The list of cases covers the registry: every op, every gradient, every kind of dim role.
#include <map>
#include <set>

#include "ops/checks.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {

TEST(ops, every_op_has_cases) {
  std::map<std::string, int> cases, differentiable;
  std::set<std::string> names;
  for (const OpCase& op_case : all_op_cases()) {
    ++cases[op_case.op];
    for (const OperandSpec& operand : op_case.operands)
      differentiable[op_case.op] += operand.differentiable && is_float(parse_type(operand.type).dtype);
    if (!names.insert(op_case.op + "." + op_case.name).second)
      throw Failure("two cases of " + op_case.op + " are called '" + op_case.name + "'");
  }
  std::string missing;
  for (const OpDef* def : all_ops()) {
    const std::string op(def->name);
    if (cases[op] == 0)
      missing += "\n  " + op + " has no case";
    else if (def->gradient && differentiable[op] == 0)
      missing += "\n  " + op + " has a gradient rule, but no case with a differentiable operand";
    if (def->doc.empty() || !def->infer || !def->reference) missing += "\n  " + op + " lacks its doc, type rule or reference";
  }
  if (!missing.empty()) throw Failure(missing);
}

TEST(ops, every_dim_role_is_proven_on_shards) {
  std::map<std::string, std::set<DimUse>> used, proven;
  for (const OpCase& op_case : all_op_cases()) {
    for (const ShardedDim& dim : shardable_dims(op_case, false)) used[op_case.op].insert(dim.role.use);
    for (const ShardedDim& dim : shardable_dims(op_case, true)) proven[op_case.op].insert(dim.role.use);
  }
  for (const auto& [op, uses] : used) {
    if (uses != proven[op]) throw Failure(op + ": no case has an even size for one of its kinds of dims (mapped, contracted)");
  }
}

}  // namespace mw::testing
