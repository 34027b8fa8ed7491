// From a model and a run's settings to the Plan of one optimizer step. No weights are needed and no memory is taken, so the same call
// serves the Trainer and planning ahead of time.
//
//   const cpu::KernelEnvironment environment = kernel_environment(mesh);
//   Plan plan = plan_train_step({.config = config, .dtype = DType::kBF16, .mesh = mesh, .batch = 8, .seq = 4096}, environment);
#pragma once
#include "exec/cpu/kernel.h"
#include "ir/plan.h"
#include "mesh/rules.h"
#include "models/programs.h"
#include "optim/optimizer.h"
#include "passes/pipeline.h"
#include "planner/hardware.h"

namespace mw {

// All that decides the Plan of a step, but for the kernels.
struct TrainPlanSpec {
  ModelConfig config;
  DType dtype = DType::kF32;  // of stored parameters and activations; masters and moments are FP32
  Mesh mesh;
  Rules rules = default_rules();
  OptimizerConfig optimizer{};
  bool decay_embeddings = false;
  RematPolicy remat{};
  int microbatches = 1;
  double expert_rows_factor = kExpertRowsFactor;
  LossTerms losses{};
  DType reduce_dtype = DType::kF32;               // of gradients that are summed over ranks, as they are sent
  int64_t most_in_flight = 0;                     // bytes of the collectives that run beside compute (passes/schedule.h)
  PipelineOrder pipeline = PipelineOrder::k1F1B;  // where the mesh has several stages
  int64_t chunks = 1;                             // runs of layers of each of them
  int64_t batch = 1;                              // sequences of the whole step
  int64_t seq = 1;
};

// What the ranks of a mesh, threads of this process, run their kernels with. `threads` of all together; 0: every processor.
cpu::KernelEnvironment kernel_environment(const Mesh& mesh, int threads = 0);

// What passes are told of the CPU's kernels.
BackendFacts cpu_backend(const cpu::KernelEnvironment& environment);

// What passes are told of a chip's kernels: ours on the CPU; elsewhere every op has one, without workspace.
BackendFacts backend_of(const Hardware& hardware, const Mesh& mesh);

using PassObserver = std::function<void(std::string_view pass, const Plan& plan)>;

// The Plan of each stage of the mesh. UserError: sizes that do not divide, naming the nearest that do.
std::vector<Plan> plan_train_stages(const TrainPlanSpec& spec, const BackendFacts& backend, const PassObserver& observer = nullptr);

// Of the stage that needs most.
int64_t peak_bytes(const std::vector<Plan>& stages);

// Of a mesh with one stage.
Plan plan_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const PassObserver& observer = nullptr);
inline Plan plan_train_step(const TrainPlanSpec& spec, const cpu::KernelEnvironment& environment, const PassObserver& observer = nullptr) {
  return plan_train_step(spec, cpu_backend(environment), observer);
}

}  // namespace mw
