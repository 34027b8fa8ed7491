// TrainStep: optimizer steps over a Session. The Python Trainer calls it; it knows nothing of data, logs or files.
//
//   TrainStep step(session, {.optimizer = {.kind = "adamw", .clip = 1.0}, .microbatches = 2});
//   StepResult result = step.run(batch, loss_scale, lr);
#pragma once
#include <map>
#include <string>
#include <vector>

#include "planner/step_report.h"
#include "session/session.h"
#include "train/recording.h"

namespace mw {

struct TrainOptions {
  OptimizerConfig optimizer;
  int microbatches = 1;
  RematPolicy remat;
  int64_t memory_bytes = 0;  // that a rank may use; 0: no limit
  bool decay_embeddings = false;
  LossTerms losses;
  DType reduce_dtype = DType::kF32;               // of gradients that are summed over ranks, as they are sent
  int64_t most_in_flight = 0;                     // bytes of the collectives that run beside compute (passes/schedule.h)
  PipelineOrder pipeline = PipelineOrder::k1F1B;  // where the mesh has several stages
};

struct StepResult {
  double loss = 0;
  double grad_norm = 0;
  std::map<std::string, std::vector<float>> more;  // "mtp_loss", "expert_load.layers.3", ...: what the terms of the loss hand out
  bool finite = true;                              // false: the update was not made
};

class TrainStep {
 public:
  TrainStep(Session& session, TrainOptions options);

  const TrainOptions& options() const { return options_; }
  // Steps done so far: the next one is number steps() + 1 (the bias corrections of AdamW count from 1).
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // One optimizer step on a whole batch (the rows of all microbatches). A loss that is not finite leaves weights and state as they were.
  StepResult run(const ModelInputs& batch, double loss_scale, double lr);

  // The Plan of a rank for batches of this shape, made on first use.
  const Plan& plan(const ModelInputs& batch, int64_t rank);
  int64_t peak_bytes(const ModelInputs& batch) { return mw::peak_bytes(loaded(batch).stages); }  // of the rank that needs most
  // Share of the time before the update in which ranks waited for other stages in the last step, on a batch of this shape; mean of all.
  double bubble(const ModelInputs& batch) { return loaded(batch).bubble; }
  // What decides the Plan for batches of this shape: explain, memory. The policy auto is chosen here.
  TrainPlanSpec spec(int64_t batch, int64_t seq) const;
  cpu::KernelEnvironment environment() const { return session_.engine().environment(); }

  // FP32 states by name, NAME being a Hugging Face tensor: "first_moment.NAME", "second_moment.NAME", "momentum.NAME", and "master.NAME"
  // with masters.
  std::vector<std::string> state_names() const;
  const std::vector<int64_t>& state_shape(const std::string& name) const;                             // of the Hugging Face tensor
  void read_state(const std::string& name, float* out, int64_t receiver = Engine::kEveryRank) const;  // as Engine::read_kept
  void write_state(const std::string& name, const float* in);

  // The steps that follow are written down; null ends it.
  void record(Recording* recording) { recording_ = recording; }

  // What a rank sent in the last step, which was on a batch of this shape; and what its Plan says of any step.
  std::vector<AxisTraffic> counted_traffic(const ModelInputs& batch, int64_t rank);
  // How long collectives held up that rank in the last step: the whole of those it waits for, the two ends of those beside compute.
  double transfer_seconds(const ModelInputs& batch, int64_t rank);
  std::vector<AxisTraffic> planned_traffic(const ModelInputs& batch, int64_t rank);

  int64_t first_rank() const { return session_.engine().world().local_ranks()[0]; }  // of this process
  int64_t bytes_in_use(int64_t rank) const { return session_.engine().memory(rank).bytes(); }
  int64_t host_bytes_in_use(int64_t rank) const { return session_.engine().memory(rank).host.bytes(); }

 private:
  static std::string key(const ModelInputs& batch);  // of its Plan
  Session::PlanMaker maker(const ModelInputs& batch) const;
  LoadedPlan& loaded(const ModelInputs& batch);
  int64_t stage_of(int64_t rank) const { return session_.options().mesh.coordinate(rank, "stage"); }
  std::pair<std::string, Block> state_block(const std::string& name) const;  // the kept buffer, and where in it

  Session& session_;
  TrainOptions options_;
  int64_t steps_ = 0;
  Recording* recording_ = nullptr;
};

}  // namespace mw
