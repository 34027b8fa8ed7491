// Session: one model's weights on the ranks of an Engine, and the Plans made for it so far. Model, Trainer and Generator of the Python
// package share one.
//
//   Session session(config, {.dtype = DType::kF32});
//   session.initialize(seed);                          // or session.load(open_weights(path))
//   session.run_forward(batch);                        // logits
//   session.rehome({.dtype = DType::kBF16, .mesh = Mesh({{"fsdp", 2}})});   // when a Trainer takes the model
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/tensor_source.h"
#include "exec/engine.h"
#include "mesh/rules.h"
#include "models/parameters.h"
#include "models/programs.h"
#include "passes/pipeline.h"
#include "planner/stages.h"

namespace mw {

struct SessionOptions {
  DType dtype = DType::kF32;  // of the stored parameters
  Mesh mesh;
  Rules rules = default_rules();
  int64_t chunks = 1;                             // runs of layers of each stage
  double expert_rows_factor = kExpertRowsFactor;  // to begin with
  int threads = 0;
  std::shared_ptr<World> world{};  // of processes, as EngineOptions says
};

// What the caches of decoding were made for.
struct CacheSizes {
  int64_t slots = 0, length = 0, step_tokens = 0;  // positions per slot; the most tokens of one step
  bool operator==(const CacheSizes&) const = default;
};

// Batch fields by name, whole: input_ids, position_ids, segment_ids i32[batch, seq], targets i32, loss_weights f32.
using ModelInputs = std::map<std::string, WholeArray>;

class Session {
 public:
  Session(ModelConfig config, SessionOptions options);

  const ModelConfig& config() const { return config_; }
  const SessionOptions& options() const { return options_; }
  const std::vector<ParameterSpec>& parameters() const { return parameters_; }
  // The Hugging Face tensors of the parameters, in their order; several make one where experts are stacked.
  std::vector<std::string> tensor_names() const;
  struct TensorView {
    const ParameterSpec& parameter;
    Block block;  // of the parameter
  };
  TensorView tensor(const std::string& name) const;  // UserError with the nearest name
  Engine& engine() { return *engine_; }

  void initialize(uint64_t seed);
  // Weights of any format, under Hugging Face names. UserError listing the tensors that are missing, unknown or of another shape. Tensors
  // of an image encoder, which this model does not run, stay where they are; they are written again when the model is saved.
  void load(std::shared_ptr<const TensorSource> source);
  // What was loaded last, and the names of those of its tensors that no parameter took.
  const std::shared_ptr<const TensorSource>& source() const { return source_; }
  const std::vector<std::string>& untouched() const { return untouched_; }
  // Whether the weights may differ from what was loaded: some were written, or an optimizer has stepped.
  bool is_changed() const { return changed_; }
  void mark_changed() { changed_ = true; }

  // One Hugging Face tensor, whole and row-major, converted. With `master`, from the FP32 master when there is one. Where ranks are
  // processes all of them read together; with `receiver`, only that rank is given the tensor.
  void read_tensor(const std::string& name, DType dtype, void* out, bool master, int64_t receiver = Engine::kEveryRank) const;
  void write_tensor(const std::string& name, DType dtype, const void* in);

  // Of all weights as they are stored: the same on every mesh. Where ranks are processes all of them ask together.
  uint64_t weights_hash() const;

  // Moves the weights to other ranks, rules or another dtype; when the new dtype is narrower, the values as they were become masters.
  void rehome(SessionOptions options);
  bool has_masters() const { return has_masters_; }
  bool has_master(const ParameterSpec& p) const { return has_masters_ && p.type.dtype != DType::kF32; }

  PlanOptions plan_options(double expert_rows_factor = kExpertRowsFactor) const;
  // Whether the ranks of a stage keep this parameter; and the stages that do.
  bool is_of_stage(int64_t stage, const ParameterSpec& p) const { return stages_.parameters[static_cast<size_t>(stage)].contains(p.name); }
  int64_t num_stages() const { return std::ssize(stages_.parameters); }
  // FP32 buffers PREFIX + NAME in the optimizer's layout, of the parameters that the stage keeps and `has_one` is true for.
  std::vector<Buffer> state_buffers(int64_t stage, const std::string& prefix,
                                    const std::function<bool(const ParameterSpec&)>& has_one) const;

  // The Plans of the stages made by `make` for this key, made once. `make` is told how much room rows of experts get
  // (PlanOptions::expert_rows_factor).
  using PlanMaker = std::function<std::vector<Plan>(double expert_rows_factor)>;
  LoadedPlan& plan(const std::string& key, const PlanMaker& make);
  // Runs it. Where rows of experts have too little room it is made again with more, for good, and the run repeated: nothing is dropped.
  LoadedPlan& run_plan(const std::string& key, const PlanMaker& make, const ModelInputs& inputs,
                       const std::map<std::string, double>& scalars, const Engine::RowHook& before_row = nullptr);
  // How often that happened so far.
  int64_t expert_reruns() const { return expert_reruns_; }
  // Drops the Plans whose key begins so.
  void forget_plans(const std::string& prefix);

  // Makes room for caches of these sizes: those of others, which another Generator left, go with their Plans (their keys begin with
  // "decode"), whatever the layers call and measure them by.
  void use_caches(const CacheSizes& sizes);

  // Logits: the result "logits" f32[batch, seq, vocab] of the returned Plan; captured values are results under their names.
  LoadedPlan& run_forward(const ModelInputs& batch, const std::vector<std::string>& capture = {});
  // Sum of weighted losses times `loss_scale`: the result "loss".
  LoadedPlan& run_loss(const ModelInputs& batch, double loss_scale);
  // Also "gradient.NAME", f32 and whole.
  LoadedPlan& run_gradients(const ModelInputs& batch, double loss_scale, const LossTerms& terms = {});

  // Runs the loss again op by op and returns the first op whose result is not finite, "" when all are.
  std::string first_not_finite(const ModelInputs& batch, double loss_scale);

  // Held while a call works on the session, whose Plans share memory. UserError when another call holds one: a second thread, or a
  // callback of the first.
  class Use {
   public:
    explicit Use(const Session& session);
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() { session_.in_use_ = false; }

   private:
    const Session& session_;
  };

 private:
  void set_parameters();
  void allocate_parameters();
  std::vector<std::string> check_tensors(const TensorSource& source) const;
  void check_copies(const TensorSource& source) const;
  void read_block(const ParameterSpec& p, const Block& block, DType dtype, void* out, bool master, int64_t receiver) const;
  void write_block(const ParameterSpec& p, const Block& block, DType dtype, const void* in);
  std::string shape_key(const ModelInputs& batch) const;
  BatchSize batch_size(const ModelInputs& batch) const;
  PlanMaker loss_plan(const ModelInputs& batch) const;

  ModelConfig config_;
  SessionOptions options_;
  std::vector<ParameterSpec> parameters_;
  std::unordered_map<std::string, TensorPlace> places_;
  Stages stages_;
  std::shared_ptr<const TensorSource> source_;
  std::vector<std::string> untouched_;
  bool changed_ = true;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, std::unique_ptr<LoadedPlan>> plans_;
  std::map<std::string, double> expert_rows_factors_;  // by the key of a Plan that needed more than the usual
  int64_t expert_reruns_ = 0;
  CacheSizes cache_sizes_;
  bool has_masters_ = false;
  mutable std::atomic<bool> in_use_ = false;
};

// The configuration without multi-token prediction where the weights have none: transformers leaves these modules out when it saves.
ModelConfig config_for(ModelConfig config, const TensorSource& source);

}  // namespace mw
