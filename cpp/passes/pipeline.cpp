#include "passes/pipeline.h"

#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/fuse.h"
#include "passes/lower.h"
#include "passes/partition.h"
#include "passes/simplify.h"

namespace mw {
namespace {

Plan checked(Plan plan, std::string_view pass, const PlanOptions& options) {
  for (const Piece& piece : plan.pieces) verify(piece.program, pass);
  if (options.observer) options.observer(pass, plan);
  return plan;
}

// The passes that work piece by piece, in their order.
Plan finish(Plan plan, const PlanOptions& options) {
  plan = checked(std::move(plan), "cut", options);
  plan = checked(partition(std::move(plan), options.mesh, options.rules), "partition", options);
  plan = checked(simplify(std::move(plan)), "simplify", options);
  plan = checked(rematerialize(std::move(plan), options.remat), "rematerialize", options);
  plan = checked(lower(std::move(plan), options.backend), "lower", options);
  if (options.fuse) plan = checked(fuse(std::move(plan)), "fuse", options);
  return checked(place(std::move(plan), options.backend), "place", options);
}

}  // namespace

Plan plan_training(Program forward, Program update, const std::vector<std::string>& trained, const PlanOptions& options) {
  const Program training = differentiate(std::move(forward), "loss", trained);
  return finish(cut(training, std::move(update), options.microbatches), options);
}

Plan plan_gradients(Program forward, const std::vector<std::string>& trained, const PlanOptions& options) {
  return finish(cut_single(differentiate(std::move(forward), "loss", trained), "gradients"), options);
}

Plan plan_single(Program program, const std::string& name, const PlanOptions& options) {
  return finish(cut_single(std::move(program), name), options);
}

}  // namespace mw
