// Every op of the list of cases: its kernel against its reference, at every ISA, in f32 and bf16, and in place where the op allows it.
#include "exec/cpu/executor.h"
#include "exec/reference/evaluate.h"
#include "exec_cpu/op_kernel_run.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

bool has_dtype(const OpCase& op_case, DType dtype) {
  for (const OperandSpec& operand : op_case.operands) {
    if (parse_type(operand.type).dtype == dtype) return true;
  }
  return false;
}

OpRun run_of(const OpCase& op_case) {
  OpRun run{.op = op_case.op, .attributes = op_case.attributes, .operands = make_operands(op_case, 7)};
  for (HostArray& operand : run.operands) round_to_dtype(operand);
  return run;
}

// The ways in which results may take over the memory of operands.
std::vector<std::vector<int>> overwritings(const OpDef& def, const OpRun& run) {
  std::vector<std::vector<int>> ways;
  const std::vector<HostArray> results = run.reference();
  std::vector<int> named(results.size(), -1);
  for (size_t r = 0; r < results.size() && r < def.in_place.size(); ++r)
    named[r] = def.in_place[r] < static_cast<int>(run.operands.size()) ? def.in_place[r] : -1;
  if (named != std::vector<int>(results.size(), -1)) ways.push_back(named);
  if (!def.elementwise) return ways;
  for (size_t r = 0; r < results.size(); ++r) {
    for (size_t i = 0; i < run.operands.size(); ++i) {
      if (run.operands[i].type != results[r].type) continue;
      std::vector<int> over(results.size(), -1);
      over[r] = static_cast<int>(i);
      ways.push_back(over);
    }
  }
  return ways;
}

// Results take their tolerance from the narrowest float that they were formed from.
void check_case(const OpCase& op_case) {
  const OpDef& def = *find_op(op_case.op);
  OpRun run = run_of(op_case);
  const std::vector<HostArray> results = run.reference();
  bool narrow = has_dtype(op_case, DType::kBF16);
  for (const HostArray& result : results) narrow |= result.type.dtype == DType::kBF16;
  const double tolerance = narrow ? 1e-2 : 1e-5;
  check_kernel(run, tolerance);
  for (const std::vector<int>& over : overwritings(def, run)) {
    run.over = over;
    check_kernel(run, tolerance);
  }
}

}  // namespace

TEST(exec_cpu, every_op_case_kernel_equals_reference) {
  std::string failures;
  for (const OpCase& op_case : all_op_cases()) {
    const OpDef& def = *find_op(op_case.op);
    if (def.view || def.collective || !cpu::find_kernel(def.name)) continue;
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (dtype == DType::kBF16 && (!op_case.other_dtypes || !has_dtype(op_case, DType::kF32))) continue;
      try {
        check_case(in_dtype(op_case, dtype));
      } catch (const std::exception& error) {
        failures += "\n  " + op_case.op + " case '" + op_case.name + "' in " + std::string(dtype_name(dtype)) + ": " + error.what();
      }
    }
  }
  if (!failures.empty()) throw Failure(failures);
}

TEST(exec_cpu, every_op_has_a_kernel_or_decomposes) {
  std::string missing;
  for (const OpDef* def : all_ops()) {
    if (!cpu::has_kernel(*def) && !def->decompose) missing += " " + std::string(def->name);
  }
  if (!missing.empty()) throw Failure("neither a kernel nor a decomposition:" + missing);
}

}  // namespace mw::testing
