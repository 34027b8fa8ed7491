#include "planner/train_plan.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/executor.h"
#include "models/programs.h"
#include "models/registry.h"
#include "passes/check_rules.h"
#include "planner/stages.h"

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

// Of what the stage keeps. A parameter that the first and the last stage keep gets the gradients of both, so that it stays the same.
Program update_of_stage(const TrainPlanSpec& spec, const std::vector<TrainedParameter>& trained,
                        const std::vector<std::set<std::string>>& kept, const StagePlans& cut, int64_t stage) {
  const int64_t last = std::ssize(kept) - 1;
  const auto keeps = [&](int64_t s, const std::string& name) { return kept[static_cast<size_t>(s)].contains(name); };
  for (const std::string& name : cut.parameters[static_cast<size_t>(stage)]) MW_CHECK(keeps(stage, name), name, " is not of stage ", stage);
  OverStages over{.axis = concat_text("stage:1:", last + 1), .stages = last + 1};
  std::vector<TrainedParameter> own;
  for (const TrainedParameter& p : trained) {
    if (!keeps(stage, p.name)) continue;
    own.push_back(p);
    if (!cut.parameters[static_cast<size_t>(stage)].contains(p.name)) over.without_gradient.insert(p.name);
    for (int64_t other = 0; other <= last; ++other) {
      if (other == stage || !keeps(other, p.name)) continue;
      MW_CHECK(std::min(stage, other) == 0 && std::max(stage, other) == last, p.name, " is kept by stages ", stage, " and ", other);
      over.summed[p.name] = concat_text("stage:", last, ":2");
      if (stage == last) over.counted_elsewhere.insert(p.name);
    }
  }
  std::vector<BalancedBias> biases = balanced_biases(spec);
  std::erase_if(biases, [&](const BalancedBias& bias) { return !keeps(stage, bias.name); });
  return trace_update(spec.optimizer, own, biases, over);
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

std::vector<Plan> plan_train_stages(const TrainPlanSpec& spec, const BackendFacts& backend, const PassObserver& observer) {
  check_microbatches(spec.batch, spec.microbatches);
  check_rules(spec.rules, spec.mesh);
  const int64_t stages = spec.mesh.size_of("stage");
  check_pipeline(spec.pipeline, {stages, spec.chunks, spec.microbatches});
  Program forward = trace_loss(spec.config, {.batch = spec.batch / spec.microbatches, .seq = spec.seq, .dtype = spec.dtype}, spec.losses,
                               spec.microbatches);
  const std::vector<TrainedParameter> trained = trained_parameters(spec);
  std::vector<std::string> names;
  for (const TrainedParameter& p : trained) names.push_back(p.name);
  PlanOptions options;
  options.mesh = spec.mesh;
  options.rules = spec.rules;
  options.microbatches = spec.microbatches;
  options.expert_rows_factor = spec.expert_rows_factor;
  options.reduce_dtype = spec.reduce_dtype;
  options.pipeline = spec.pipeline;
  options.chunks = spec.chunks;
  options.most_in_flight = spec.most_in_flight;
  options.remat = spec.remat;
  options.backend = backend;
  options.observer = observer;
  std::vector<Plan> plans;
  if (stages == 1) {
    plans.push_back(plan_training(std::move(forward), trace_update(spec.optimizer, trained, balanced_biases(spec)), names, options));
    return plans;
  }
  const Stages dealt = deal_out(spec.config, stages, spec.chunks);
  options.layers_of_parts = dealt.layers;
  return plan_training_stages(
      std::move(forward),
      [&](const StagePlans& cut, int64_t stage) { return update_of_stage(spec, trained, dealt.parameters, cut, stage); }, names, options);
}

int64_t peak_bytes(const std::vector<Plan>& stages) {
  int64_t most = 0;
  for (const Plan& plan : stages) most = std::max(most, plan.peak_bytes());
  return most;
}

Plan plan_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const PassObserver& observer) {
  MW_CHECK(spec.mesh.size_of("stage") == 1, "a step on ", spec.mesh.to_string(), " has a Plan for each stage");
  return std::move(plan_train_stages(spec, backend, observer).front());
}

}  // namespace mw
