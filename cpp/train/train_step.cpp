#include "train/train_step.h"

#include <cmath>

#include "base/error.h"
#include "passes/partition.h"

namespace mw {

TrainStep::TrainStep(Session& session, TrainOptions options) : session_(session), options_(std::move(options)) {
  check_optimizer(options_.optimizer);
  if (options_.microbatches < 1) throw UserError("microbatches is " + std::to_string(options_.microbatches) + "; expected at least 1");
  std::vector<Buffer> states;
  for (const std::string& prefix : optimizer_state_prefixes(options_.optimizer)) {
    for (const ParameterSpec& p : session.parameters()) {
      const Type type = p.type.with_dtype(DType::kF32);
      states.push_back(kept_buffer(prefix + p.name, BufferRole::kOptimizerState, type,
                                   stored_layout(session.options().rules.optimizer, session.options().mesh, type)));
    }
  }
  session.engine().ensure_kept(states);
}

std::vector<std::string> TrainStep::state_names() const {
  std::vector<std::string> names;
  std::vector<std::string> prefixes = optimizer_state_prefixes(options_.optimizer);
  if (session_.has_masters()) prefixes.push_back(kMasterPrefix);
  for (const std::string& prefix : prefixes) {
    for (const ParameterSpec& p : session_.parameters()) names.push_back(prefix + p.name);
  }
  return names;
}

TrainPlanSpec TrainStep::spec(int64_t batch, int64_t seq) const {
  const SessionOptions& session = session_.options();
  return {.config = session_.config(),
          .dtype = session.dtype,
          .mesh = session.mesh,
          .rules = session.rules,
          .optimizer = options_.optimizer,
          .decay_embeddings = options_.decay_embeddings,
          .remat = options_.remat,
          .microbatches = options_.microbatches,
          .batch = batch,
          .seq = seq};
}

LoadedPlan& TrainStep::loaded(const ModelInputs& batch) {
  const Type& ids = batch.at("input_ids").type;
  return session_.plan("train " + to_string(ids),
                       [&] { return plan_train_step(spec(ids.size_of("batch"), ids.size_of("seq")), environment()); });
}

const Plan& TrainStep::plan(const ModelInputs& batch) { return loaded(batch).plan; }

StepResult TrainStep::run(const ModelInputs& batch, double loss_scale, double lr) {
  const Session::Use use(session_);
  LoadedPlan& step = loaded(batch);
  const double t = static_cast<double>(steps_ + 1);
  const std::map<std::string, double> scalars{{"loss_scale", loss_scale},
                                              {"lr", lr},
                                              {"correction1", 1.0 - std::pow(options_.optimizer.beta1, t)},
                                              {"correction2", 1.0 - std::pow(options_.optimizer.beta2, t)}};
  StepResult result;
  session_.engine().run(step, batch, scalars, [&](const RunRow&, const Piece& piece) {
    if (piece.name != "update") return true;
    result.loss = session_.engine().scalar(step, "loss");
    result.finite = std::isfinite(result.loss);
    return result.finite;
  });
  if (!result.finite) return result;
  result.grad_norm = session_.engine().scalar(step, "grad_norm");
  ++steps_;
  return result;
}

}  // namespace mw
