#include "session/program_runner.h"

#include "base/error.h"
#include "exec/finite_check.h"
#include "passes/pipeline.h"
#include "planner/train_plan.h"

namespace mw {
namespace {

Plan plan_program(const Program& program, const cpu::KernelEnvironment& environment, bool fuse) {
  PlanOptions options;
  options.fuse = fuse;
  options.backend = cpu_backend(environment);
  return plan_single(program, program.name, options);
}

}  // namespace

ProgramRunner::ProgramRunner(const Program& program, ProgramRunnerOptions options)
    : engine_({.mesh = Mesh(), .threads = options.threads}),
      loaded_(engine_.load(plan_program(program, engine_.environment(), !options.check_finite))),
      check_finite_(options.check_finite) {}

ProgramRunner::~ProgramRunner() = default;

void ProgramRunner::run(const std::map<std::string, WholeArray>& inputs) {
  std::map<std::string, double> scalars;
  for (const auto& [name, array] : inputs) {
    if (array.type.dims.empty()) scalars[name] = load_element(array.type.dtype, array.data, 0);
  }
  std::string first;
  if (check_finite_) {
    engine_.observe(*loaded_, [&](int64_t, const Program& program, const Op& op, const cpu::KernelRun& run) {
      if (first.empty() && !op.operands.empty()) first = find_not_finite(program, op, run);
    });
  }
  engine_.run(*loaded_, inputs, scalars);
  if (check_finite_) engine_.observe(*loaded_, nullptr);
  if (!first.empty()) throw UserError(first);
}

}  // namespace mw
