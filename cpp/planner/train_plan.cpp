#include "planner/train_plan.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/executor.h"
#include "models/programs.h"
#include "models/registry.h"
#include "passes/check_rules.h"

namespace mw {
namespace {

void check_microbatches(int64_t batch, int64_t microbatches) {
  if (microbatches < 1) throw UserError("microbatches is " + std::to_string(microbatches) + "; expected at least 1");
  if (batch % microbatches == 0) return;
  const int64_t below = batch / microbatches * microbatches;
  throw UserError("a batch of " + std::to_string(batch) + " sequences does not divide into " + std::to_string(microbatches) +
                  " microbatches; nearest that does: " + (below > 0 ? std::to_string(below) + " or " : "") +
                  std::to_string(below + microbatches));
}

std::vector<TrainedParameter> trained_parameters(const TrainPlanSpec& spec) {
  std::vector<TrainedParameter> list;
  for (const ParameterSpec& p : model_parameters(spec.config, spec.dtype)) {
    if (p.trained) list.push_back({p.name, p.type, p.decays() || (spec.decay_embeddings && p.is_embedding)});
  }
  return list;
}

std::vector<BalancedBias> balanced_biases(const TrainPlanSpec& spec) {
  std::vector<BalancedBias> list;
  if (spec.losses.selection_bias_rate == 0) return list;
  for (const ParameterSpec& p : model_parameters(spec.config, spec.dtype)) {
    if (!p.trained) list.push_back({p.name, p.type, spec.losses.selection_bias_rate});
  }
  return list;
}

}  // namespace

cpu::KernelEnvironment kernel_environment(const Mesh& mesh, int threads) {
  const int all = threads > 0 ? threads : usable_processors();
  return {.isa = chosen_isa(), .threads = static_cast<int>(std::max<int64_t>(1, all / mesh.size()))};
}

BackendFacts cpu_backend(const cpu::KernelEnvironment& environment) {
  return {.workspace_bytes = [environment](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, environment); },
          .has_kernel = cpu::has_kernel};
}

BackendFacts backend_of(const Hardware& hardware, const Mesh& mesh) {
  return hardware.kernels == "cpu" ? cpu_backend(kernel_environment(mesh)) : BackendFacts{};
}

Plan plan_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const PassObserver& observer) {
  check_microbatches(spec.batch, spec.microbatches);
  check_rules(spec.rules, spec.mesh);
  Program forward = trace_loss(spec.config, {.batch = spec.batch / spec.microbatches, .seq = spec.seq, .dtype = spec.dtype}, spec.losses,
                               spec.microbatches);
  const std::vector<TrainedParameter> trained = trained_parameters(spec);
  std::vector<std::string> names;
  for (const TrainedParameter& p : trained) names.push_back(p.name);
  Program update = trace_update(spec.optimizer, trained, balanced_biases(spec));
  PlanOptions options;
  options.mesh = spec.mesh;
  options.rules = spec.rules;
  options.microbatches = spec.microbatches;
  options.expert_rows_factor = spec.expert_rows_factor;
  options.reduce_dtype = spec.reduce_dtype;
  options.most_in_flight = spec.most_in_flight;
  options.remat = spec.remat;
  options.backend = backend;
  options.observer = observer;
  return plan_training(std::move(forward), std::move(update), names, options);
}

}  // namespace mw
