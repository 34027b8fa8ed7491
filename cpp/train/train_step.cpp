#include "train/train_step.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "passes/partition.h"
#include "planner/choose_remat.h"

namespace mw {
namespace {

// Before the Plan's buffers are made: an allocation that the machine cannot back ends the process when it is written to.
void check_memory(const std::vector<Plan>& stages, const TrainPlanSpec& spec, int64_t available) {
  int64_t needed = 0;
  for (const Plan& plan : stages) needed = std::max(needed, plan.peak_bytes() + plan.host_bytes);  // of a CPU, one memory
  if (available <= 0 || needed <= available) return;
  const int64_t ranks = spec.mesh.size();
  throw UserError(concat_text("a step on ", spec.batch, " x ", spec.seq, " tokens needs ", needed, " bytes",
                              ranks > 1 ? concat_text(stages.size() > 1 ? " on the fullest of " : " on each of ", ranks, " ranks") : "",
                              ", ", needed - available, " more than the ", available,
                              " there are; expected more recompute (remat=auto takes the least that fits), more microbatches (now ",
                              spec.microbatches, "), a smaller batch or a larger `memory`. `meshwright plan` says what each needs"));
}

}  // namespace

TrainStep::TrainStep(Session& session, TrainOptions options) : session_(session), options_(std::move(options)) {
  check_optimizer(options_.optimizer);
  check_loss_terms(options_.losses, session.config());
  if (options_.microbatches < 1) throw UserError("microbatches is " + std::to_string(options_.microbatches) + "; expected at least 1");
  check_pipeline(options_.pipeline, {session.num_stages(), session.options().chunks, options_.microbatches});
  std::vector<std::vector<Buffer>> states;  // by stage
  for (int64_t stage = 0; stage < session.num_stages(); ++stage) {
    std::vector<Buffer>& own = states.emplace_back();
    for (const std::string& prefix : optimizer_state_prefixes(options_.optimizer)) {
      for (Buffer& state : session.state_buffers(stage, prefix, [](const ParameterSpec& p) { return p.trained; }))
        own.push_back(std::move(state));
    }
  }
  for (const int64_t rank : session.engine().world().local_ranks()) {
    int64_t bytes = session.engine().memory(rank).bytes();
    for (const Buffer& state : states[static_cast<size_t>(stage_of(rank))]) bytes += state.bytes;
    if (options_.memory_bytes > 0 && bytes > options_.memory_bytes)
      throw UserError(concat_text("parameters and ", options_.optimizer.kind, "'s state take ", bytes, " bytes of a rank, ",
                                  bytes - options_.memory_bytes, " more than the ", options_.memory_bytes,
                                  " there are; expected more ranks on other machines, or a smaller model"));
  }
  for (int64_t stage = 0; stage < session.num_stages(); ++stage) session.engine().ensure_kept(states[static_cast<size_t>(stage)], stage);
}

std::vector<std::string> TrainStep::state_names() const {
  std::vector<std::string> names;
  const auto add = [&](const std::string& prefix, const ParameterSpec& p) {
    for (int64_t i = 0; i < p.num_tensors(); ++i) names.push_back(prefix + p.tensor_name(i));
  };
  for (const std::string& prefix : optimizer_state_prefixes(options_.optimizer)) {
    for (const ParameterSpec& p : session_.parameters()) {
      if (p.trained) add(prefix, p);
    }
  }
  for (const ParameterSpec& p : session_.parameters()) {
    if (session_.has_master(p)) add(kMasterPrefix, p);
  }
  return names;
}

std::pair<std::string, Block> TrainStep::state_block(const std::string& name) const {
  const size_t dot = name.find('.') + 1;
  const Session::TensorView view = session_.tensor(name.substr(dot));
  return {name.substr(0, dot) + view.parameter.name, {view.block.type.with_dtype(DType::kF32), view.block.start}};
}

const std::vector<int64_t>& TrainStep::state_shape(const std::string& name) const {
  return session_.tensor(name.substr(name.find('.') + 1)).parameter.hf_shape;
}

void TrainStep::read_state(const std::string& name, float* out, int64_t receiver) const {
  const auto [kept, block] = state_block(name);
  session_.engine().read_kept(kept, block, out, receiver);
}

void TrainStep::write_state(const std::string& name, const float* in) {
  const auto [kept, block] = state_block(name);
  session_.engine().write_kept(kept, block, in);
}

TrainPlanSpec TrainStep::spec(int64_t batch, int64_t seq) const {
  const SessionOptions& session = session_.options();
  TrainPlanSpec spec{.config = session_.config(),
                     .dtype = session.dtype,
                     .mesh = session.mesh,
                     .rules = session.rules,
                     .optimizer = options_.optimizer,
                     .decay_embeddings = options_.decay_embeddings,
                     .remat = options_.remat,
                     .microbatches = options_.microbatches,
                     .losses = options_.losses,
                     .reduce_dtype = options_.reduce_dtype,
                     .most_in_flight = options_.most_in_flight,
                     .pipeline = options_.pipeline,
                     .chunks = session.chunks,
                     .batch = batch,
                     .seq = seq};
  if (spec.remat.kind == "auto") spec.remat = choose_remat(spec, cpu_backend(environment()), options_.memory_bytes);
  return spec;
}

std::string TrainStep::key(const ModelInputs& batch) { return "train " + to_string(batch.at("input_ids").type); }

Session::PlanMaker TrainStep::maker(const ModelInputs& batch) const {
  const Type& ids = batch.at("input_ids").type;
  return [this, batch = ids.size_of("batch"), seq = ids.size_of("seq")](double expert_rows_factor) {
    TrainPlanSpec step = spec(batch, seq);
    step.expert_rows_factor = expert_rows_factor;
    std::vector<Plan> stages = plan_train_stages(step, cpu_backend(environment()));
    check_memory(stages, step, options_.memory_bytes);
    return stages;
  };
}

LoadedPlan& TrainStep::loaded(const ModelInputs& batch) { return session_.plan(key(batch), maker(batch)); }

const Plan& TrainStep::plan(const ModelInputs& batch, int64_t rank) { return loaded(batch).plan_of(stage_of(rank)); }

std::vector<AxisTraffic> TrainStep::counted_traffic(const ModelInputs& batch, int64_t rank) {
  const LoadedPlan& step = loaded(batch);
  const size_t place = session_.engine().place_of(rank);
  return mw::counted_traffic(step.plan_of(stage_of(rank)), *step.ranks[place], step.mailed[place]);
}

double TrainStep::transfer_seconds(const ModelInputs& batch, int64_t rank) {
  const LoadedPlan& step = loaded(batch);
  const cpu::Executor& executor = *step.ranks[session_.engine().place_of(rank)];
  double seconds = 0;
  for (size_t piece = 0; piece < step.plan_of(stage_of(rank)).pieces.size(); ++piece) {
    for (const cpu::Executor::Step& op : executor.steps(static_cast<int32_t>(piece))) seconds += op.seconds;
  }
  return seconds;
}

std::vector<AxisTraffic> TrainStep::planned_traffic(const ModelInputs& batch, int64_t rank) {
  return mw::planned_traffic(plan(batch, rank));
}

StepResult TrainStep::run(const ModelInputs& batch, double loss_scale, double lr) {
  const Session::Use use(session_);
  session_.mark_changed();
  const double t = static_cast<double>(steps_ + 1);
  const std::map<std::string, double> scalars{{"loss_scale", loss_scale},
                                              {"lr", lr},
                                              {"correction1", 1.0 - std::pow(options_.optimizer.beta1, t)},
                                              {"correction2", 1.0 - std::pow(options_.optimizer.beta2, t)}};
  StepResult result;
  session_.engine().record(recording_ != nullptr);
  LoadedPlan& step = session_.run_plan(key(batch), maker(batch), batch, scalars, [&](const RunRow&, const Piece& piece) {
    if (piece.name != "update") return true;
    result.loss = session_.engine().scalar(loaded(batch), "loss");
    result.finite = std::isfinite(result.loss);
    return result.finite;
  });
  session_.engine().record(false);
  if (recording_) recording_->add(steps_ + 1, step, session_.engine());
  if (!result.finite) return result;
  if (const ExpertRowsPlanned& rows = step.expert_rows; rows.bound > 0) {
    result.more["expert_rows"] = {static_cast<float>(step.expert_load * static_cast<double>(rows.mean))};
    result.more["expert_rows_bound"] = {static_cast<float>(rows.bound)};
    result.more["expert_reruns"] = {static_cast<float>(session_.expert_reruns())};
  }
  result.grad_norm = session_.engine().scalar(step, "grad_norm");
  for (const Buffer& buffer : step.results) {
    if (buffer.name == "loss" || buffer.name == "grad_norm") continue;
    const auto* values = reinterpret_cast<const float*>(session_.engine().result(step, buffer.name));
    result.more[buffer.name].assign(values, values + buffer.type.elements());
  }
  ++steps_;
  return result;
}

}  // namespace mw
