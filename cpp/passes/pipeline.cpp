#include "passes/pipeline.h"

#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/fuse.h"
#include "passes/lower.h"
#include "passes/partition.h"
#include "passes/schedule.h"
#include "passes/simplify.h"

namespace mw {
namespace {

Plan checked(Plan plan, std::string_view pass, const PlanOptions& options) {
  for (const Piece& piece : plan.pieces) verify(piece.program, pass);
  if (options.observer) options.observer(pass, plan);
  return plan;
}

Program exchanged(Program program, const PlanOptions& options, ExpertRowsPlanned& rows) {
  program = exchange_experts(std::move(program), options.mesh, options.rules, options.expert_rows_factor, rows);
  verify(program, "exchange_experts");
  return program;
}

// The passes that work piece by piece, in their order.
Plan finish(Plan plan, const PlanOptions& options, const ExpertRowsPlanned& rows) {
  plan.expert_rows = rows;
  plan = checked(std::move(plan), "cut", options);
  plan = checked(partition(std::move(plan), options.mesh, options.rules, options.reduce_dtype), "partition", options);
  plan = checked(simplify(std::move(plan)), "simplify", options);
  plan = checked(rematerialize(std::move(plan), options.remat), "rematerialize", options);
  plan = checked(lower(std::move(plan), options.backend), "lower", options);
  if (options.fuse) plan = checked(fuse(std::move(plan)), "fuse", options);
  plan = checked(schedule(std::move(plan), options.most_in_flight, options.backend), "schedule", options);
  return checked(place(std::move(plan), options.backend), "place", options);
}

std::vector<Plan> finish(StagePlans plans, const PlanOptions& options, const ExpertRowsPlanned& rows) {
  std::vector<Plan> finished;
  for (Plan& plan : plans.stages) finished.push_back(finish(std::move(plan), options, rows));
  return finished;
}

std::vector<Plan> only(Plan plan) {
  std::vector<Plan> plans;
  plans.push_back(std::move(plan));
  return plans;
}

int64_t num_stages(const PlanOptions& options) { return options.mesh.size_of("stage"); }

}  // namespace

Plan plan_training(Program forward, Program update, const std::vector<std::string>& trained, const PlanOptions& options) {
  ExpertRowsPlanned rows;
  const Program training = exchanged(differentiate(std::move(forward), "loss", trained), options, rows);
  return finish(cut(training, std::move(update), options.microbatches), options, rows);
}

Plan plan_gradients(Program forward, const std::vector<std::string>& trained, const PlanOptions& options) {
  ExpertRowsPlanned rows;
  Program program = exchanged(differentiate(std::move(forward), "loss", trained), options, rows);
  return finish(cut_single(std::move(program), "gradients"), options, rows);
}

Plan plan_single(Program program, const std::string& name, const PlanOptions& options) {
  ExpertRowsPlanned rows;
  program = exchanged(std::move(program), options, rows);
  return finish(cut_single(std::move(program), name), options, rows);
}

std::vector<Plan> plan_training_stages(Program forward, const std::function<Program(const StagePlans&, int64_t stage)>& update_of,
                                       const std::vector<std::string>& trained, const PlanOptions& options) {
  ExpertRowsPlanned rows;
  const Program training = exchanged(differentiate(std::move(forward), "loss", trained), options, rows);
  StagePlans plans =
      cut_into_stages(training, options.pipeline, {num_stages(options), options.chunks, options.microbatches}, options.layers_of_parts);
  add_updates(plans, [&](int64_t stage) { return update_of(plans, stage); });
  return finish(std::move(plans), options, rows);
}

std::vector<Plan> plan_gradients_stages(Program forward, const std::vector<std::string>& trained, const PlanOptions& options) {
  if (num_stages(options) == 1) return only(plan_gradients(std::move(forward), trained, options));
  ExpertRowsPlanned rows;
  const Program training = exchanged(differentiate(std::move(forward), "loss", trained), options, rows);
  StagePlans plans = cut_into_stages(training, PipelineOrder::kGpipe, {num_stages(options), options.chunks, 1}, options.layers_of_parts);
  for (Plan& plan : plans.stages) {
    for (Piece& piece : plan.pieces) {
      for (ProgramOutput& output : piece.program.outputs) {
        if (output.kind == OutputKind::kState) output.kind = OutputKind::kResult;  // "gradient.NAME"
      }
    }
  }
  return finish(std::move(plans), options, rows);
}

std::vector<Plan> plan_single_stages(Program program, const std::string& name, const PlanOptions& options) {
  if (num_stages(options) == 1) return only(plan_single(std::move(program), name, options));
  ExpertRowsPlanned rows;
  program = exchanged(std::move(program), options, rows);
  return finish(cut_single_into_stages(program, name, num_stages(options), options.chunks, options.layers_of_parts), options, rows);
}

}  // namespace mw
