// The pipeline, as a table of contents: from a traced Program to a placed Plan.
//
//   differentiate -> exchange_experts -> cut -> partition -> simplify -> rematerialize -> lower -> fuse -> schedule -> place
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "ir/plan.h"
#include "mesh/mesh.h"
#include "mesh/rules.h"
#include "passes/cut_stages.h"
#include "passes/exchange_experts.h"
#include "passes/place.h"
#include "passes/rematerialize.h"

namespace mw {

struct PlanOptions {
  Mesh mesh;
  Rules rules = default_rules();
  int microbatches = 1;
  double expert_rows_factor = kExpertRowsFactor;  // rows of experts that a rank has room for, as a multiple of their mean
  DType reduce_dtype = DType::kF32;               // of gradients that are summed over ranks, as they are sent
  PipelineOrder pipeline = PipelineOrder::k1F1B;  // where the mesh has several stages
  int64_t chunks = 1;                             // runs of layers of each stage
  std::vector<int64_t> layers_of_parts{};         // layers of each of stages * chunks runs; none: as even as they go
  RematPolicy remat;
  bool fuse = true;
  int64_t most_in_flight = 0;  // bytes of the collectives that run beside compute (passes/schedule.h); 0: every op waits for them
  BackendFacts backend;
  // Called with the Plan before the first pass (name "cut") and after each pass: explain and golden tests.
  std::function<void(std::string_view pass, const Plan& plan)> observer;
};

// A training step: `forward` returns the scalar "loss" (and other f32 scalars); `update` is the optimizer's Program.
Plan plan_training(Program forward, Program update, const std::vector<std::string>& trained, const PlanOptions& options);

// Loss and gradients without an update: results "loss" and "gradient.NAME".
Plan plan_gradients(Program forward, const std::vector<std::string>& trained, const PlanOptions& options);

// One piece that is run on its own: evaluation, logits, decoding.
Plan plan_single(Program program, const std::string& name, const PlanOptions& options);

// The same over the stages of the mesh, of which there may be one: the Plan of each. `update_of` traces the update of one stage, for the
// parameters that it has. A result that several stages have is the sum of theirs.
std::vector<Plan> plan_training_stages(Program forward, const std::function<Program(const StagePlans&, int64_t stage)>& update_of,
                                       const std::vector<std::string>& trained, const PlanOptions& options);
std::vector<Plan> plan_gradients_stages(Program forward, const std::vector<std::string>& trained, const PlanOptions& options);
std::vector<Plan> plan_single_stages(Program program, const std::string& name, const PlanOptions& options);

}  // namespace mw
