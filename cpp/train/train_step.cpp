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

std::vector<TrainedParameter> TrainStep::trained() const {
  std::vector<TrainedParameter> list;
  for (const ParameterSpec& p : session_.parameters())
    list.push_back({p.name, p.type, p.decays() || (options_.decay_embeddings && p.is_embedding)});
  return list;
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

Plan TrainStep::make_plan(int64_t batch, int64_t seq, const std::function<void(std::string_view, const Plan&)>& observer) const {
  if (batch % options_.microbatches != 0) {
    const int64_t m = options_.microbatches, below = batch / m * m;
    throw UserError("a batch of " + std::to_string(batch) + " sequences does not divide into " + std::to_string(m) +
                    " microbatches; nearest that does: " + (below > 0 ? std::to_string(below) + " or " : "") + std::to_string(below + m));
  }
  PlanOptions plan_options = session_.plan_options();
  plan_options.microbatches = options_.microbatches;
  plan_options.remat = options_.remat;
  plan_options.observer = observer;
  Program forward = trace_loss(session_.config(), {.batch = batch / options_.microbatches, .seq = seq, .dtype = session_.options().dtype});
  return plan_training(std::move(forward), trace_update(options_.optimizer, trained()), {}, plan_options);
}

LoadedPlan& TrainStep::loaded(const ModelInputs& batch) {
  const Type& ids = batch.at("input_ids").type;
  return session_.plan("train " + to_string(ids), [&] { return make_plan(ids.size_of("batch"), ids.size_of("seq")); });
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
