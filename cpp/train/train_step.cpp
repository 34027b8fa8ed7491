#include "train/train_step.h"

#include <cmath>

#include "base/error.h"
#include "passes/partition.h"
#include "planner/choose_remat.h"

namespace mw {
namespace {

// Before the Plan's buffers are made: an allocation that the machine cannot back ends the process when it is written to.
void check_memory(const Plan& plan, const TrainPlanSpec& spec, int64_t available) {
  const int64_t needed = plan.peak_bytes() + plan.host_peak_bytes();  // of a CPU, one memory
  if (available <= 0 || needed <= available) return;
  const int64_t ranks = spec.mesh.size();
  throw UserError(concat_text("a step on ", spec.batch, " x ", spec.seq, " tokens needs ", needed, " bytes",
                              ranks > 1 ? concat_text(" on each of ", ranks, " ranks") : "", ", ", needed - available, " more than the ",
                              available,
                              " there are; expected more recompute (remat=auto takes the least that fits), more microbatches (now ",
                              spec.microbatches, "), a smaller batch or a larger `memory`. `meshwright plan` says what each needs"));
}

}  // namespace

TrainStep::TrainStep(Session& session, TrainOptions options) : session_(session), options_(std::move(options)) {
  check_optimizer(options_.optimizer);
  check_loss_terms(options_.losses, session.config());
  if (options_.microbatches < 1) throw UserError("microbatches is " + std::to_string(options_.microbatches) + "; expected at least 1");
  std::vector<Buffer> states;
  for (const std::string& prefix : optimizer_state_prefixes(options_.optimizer)) {
    for (const ParameterSpec& p : session.parameters()) {
      if (!p.trained) continue;
      const Type type = p.type.with_dtype(DType::kF32);
      states.push_back(kept_buffer(prefix + p.name, BufferRole::kOptimizerState, type,
                                   stored_layout(session.options().rules.optimizer, session.options().mesh, type)));
    }
  }
  int64_t bytes = session.engine().memory(first_rank()).bytes();
  for (const Buffer& state : states) bytes += state.bytes;
  if (options_.memory_bytes > 0 && bytes > options_.memory_bytes)
    throw UserError(concat_text("parameters and ", options_.optimizer.kind, "'s state take ", bytes, " bytes of a rank, ",
                                bytes - options_.memory_bytes, " more than the ", options_.memory_bytes,
                                " there are; expected more ranks on other machines, or a smaller model"));
  session.engine().ensure_kept(states);
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
    Plan plan = plan_train_step(step, environment());
    check_memory(plan, step, options_.memory_bytes);
    return plan;
  };
}

LoadedPlan& TrainStep::loaded(const ModelInputs& batch) { return session_.plan(key(batch), maker(batch)); }

const Plan& TrainStep::plan(const ModelInputs& batch) { return loaded(batch).stages.front(); }

std::vector<AxisTraffic> TrainStep::counted_traffic(const ModelInputs& batch, int64_t rank) {
  const LoadedPlan& step = loaded(batch);
  return mw::counted_traffic(step.plan_of(session_.options().mesh.coordinate(rank, "stage")),
                             *step.ranks[session_.engine().place_of(rank)]);
}

double TrainStep::transfer_seconds(const ModelInputs& batch, int64_t rank) {
  const LoadedPlan& step = loaded(batch);
  const cpu::Executor& executor = *step.ranks[session_.engine().place_of(rank)];
  double seconds = 0;
  for (size_t piece = 0; piece < step.plan_of(session_.options().mesh.coordinate(rank, "stage")).pieces.size(); ++piece) {
    for (const cpu::Executor::Step& op : executor.steps(static_cast<int32_t>(piece))) seconds += op.seconds;
  }
  return seconds;
}

std::vector<AxisTraffic> TrainStep::planned_traffic(const ModelInputs& batch) {
  const Type& ids = batch.at("input_ids").type;
  return report_step(spec(ids.size_of("batch"), ids.size_of("seq")), plan(batch)).traffic;
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
  LoadedPlan& step = session_.run_plan(key(batch), maker(batch), batch, scalars, [&](const RunRow&, const Piece& piece) {
    if (piece.name != "update") return true;
    result.loss = session_.engine().scalar(loaded(batch), "loss");
    result.finite = std::isfinite(result.loss);
    return result.finite;
  });
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
