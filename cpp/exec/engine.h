// Engine: the ranks of a mesh in this process (all of them as threads, or one beside those of other processes), their memory, and the
// Plans they run. Arrays go in and come out whole; each rank takes its own part by the layouts in the Plan. With ranks in other processes
// every process makes the same calls; those that move data between ranks say so.
//
//   Engine engine({.mesh = Mesh({{"fsdp", 2}}), .threads = 2});
//   LoadedPlan& step = engine.load(plan);
//   engine.write_kept("model.norm.weight", array);
//   engine.run(step, {{"input_ids", ids}}, {{"lr", 1e-3f}});
//   float loss = engine.scalar(step, "loss");
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/world.h"
#include "exec/cpu/executor.h"
#include "exec/memory.h"
#include "exec/shards.h"
#include "exec/stage_mail.h"
#include "exec/timeline.h"
#include "ir/plan.h"

namespace mw {

struct EngineOptions {
  Mesh mesh;
  int threads = 0;  // of all ranks together; 0: the CPUs that they may use
  // Processes as ranks; it must have as many as the mesh, unless that has one. None: the ranks are threads of this process.
  std::shared_ptr<World> world{};
};

// A whole array, row-major. Batch fields hold the rows of all microbatches, one after the other.
struct WholeArray {
  Type type;
  const void* data;
};

// A Plan bound to the memory of every rank; in a pipeline that of every stage, bound to the memory of its ranks.
struct LoadedPlan {
  std::vector<Plan> stages;                           // one where there is no pipeline
  std::vector<Buffer> results;                        // of all stages, each name once
  ExpertRowsPlanned expert_rows;                      // of the stage with the largest bound
  std::vector<std::unique_ptr<cpu::Executor>> ranks;  // of this process
  StageMail mail;
  int64_t number = 0;  // of the Plans that the engine has loaded, from 1
  // Results of pieces before `update`, as the last run left them for every stage: f32 ones are the sum of the stages' own, others are those
  // of the first stage that has them.
  struct SharedResult {
    Type type;
    int64_t first;  // stage
    std::vector<std::byte> values;
  };
  std::map<std::string, SharedResult> over_stages;

  // Of the last run.
  double expert_load = 0;           // the most rows of experts that a rank had to work on, as a multiple of their mean
  double bubble = 0;                // share of the time before `update` in which ranks waited for other stages, mean of all ranks
  std::vector<SentMail> mailed;     // by each rank of this process to other stages
  std::vector<Timeline> timelines;  // of each rank of this process; empty unless it was recorded

  const Plan& plan_of(int64_t stage) const { return stages[stages.size() == 1 ? 0 : static_cast<size_t>(stage)]; }
};

// Some rank would have had to work on more rows of experts than its Plan has room for. The run ended before `update`: parameters and
// optimizer state are as they were, and accumulators and results mean nothing. It wants a Plan of a larger bound.
class TooManyExpertRows : public std::runtime_error {
 public:
  TooManyExpertRows(const ExpertRowsPlanned& planned, double load);
  double load;  // as a multiple of the mean; later layers may want more
};

class Engine {
 public:
  static constexpr int64_t kEveryRank = -1;

  explicit Engine(EngineOptions options);
  ~Engine();

  const Mesh& mesh() const { return options_.mesh; }
  cpu::KernelEnvironment environment() const;
  int threads() const { return options_.threads; }  // of this process
  int threads_per_rank() const;
  World& world() const { return *world_; }
  // Where a rank stands among those of this process; UserError when it is in another one.
  size_t place_of(int64_t rank) const;

  // Allocates what the Plan needs beyond what is there and binds it. Plans are run one at a time. With other processes: UserError when the
  // ranks of a stage have different Programs.
  std::unique_ptr<LoadedPlan> load(Plan plan);
  // The Plans of a pipeline's stages: as many as the mesh axis `stage` has.
  std::unique_ptr<LoadedPlan> load(std::vector<Plan> stages);

  // Runs all rows of the Plan's order. `before_row` (called for the first rank of each process; in a pipeline, whose stages have different
  // rows, for `update` alone) may stop the run before a row by returning false there. TooManyExpertRows, the same on all ranks, before
  // `update` and before anything is handed out. With other processes: UserError naming the input or scalar that is not the same on all of
  // them.
  using RowHook = std::function<bool(const RunRow&, const Piece&)>;
  void run(LoadedPlan& loaded, const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars,
           const RowHook& before_row = nullptr);

  // Whether runs leave timelines in their Plan.
  void record(bool on) { recording_ = on; }

  // Called for every op of rank `rank` while it is set; null ends it.
  using OpObserver = std::function<void(int64_t rank, const Program&, const Op&, const cpu::KernelRun&)>;
  void observe(LoadedPlan& loaded, OpObserver observer);

  // Kept buffers (parameters, optimizer state): blocks of the whole array; the types must agree. Reading collects what other processes
  // have, so that all of them read together; with `receiver`, only the process of this rank is given the block.
  bool has_kept(const std::string& name) const { return kept_.contains(name); }
  const Buffer& kept_buffer(const std::string& name) const { return kept_place(name).buffer; }
  void write_kept(const std::string& name, const Block& block, const void* data);
  void read_kept(const std::string& name, const Block& block, void* data, int64_t receiver = kEveryRank) const;
  void write_kept(const std::string& name, const void* whole) { write_kept(name, Block::whole(kept_buffer(name).global_type), whole); }
  void read_kept(const std::string& name, void* whole) const { read_kept(name, Block::whole(kept_buffer(name).global_type), whole); }
  // Allocates buffers that no Plan names yet (weights before the first run), on the ranks of all stages or of one.
  static constexpr int64_t kEveryStage = -1;
  void ensure_kept(const std::vector<Buffer>& buffers, int64_t stage = kEveryStage);

  // Frees the kept buffers whose names begin so; Plans that name them must be gone.
  void forget_kept(const std::string& prefix);

  // A result of the last run: results are whole on every rank.
  const Type& result_type(const LoadedPlan& loaded, const std::string& name) const;
  const std::byte* result(const LoadedPlan& loaded, const std::string& name) const;
  double scalar(const LoadedPlan& loaded, const std::string& name) const;

  RankMemory& memory(int64_t rank) { return *memory_[place_of(rank)]; }

 private:
  // What ranks keep under a name, and the stages whose ranks do: known on every rank.
  struct KeptPlace {
    Buffer buffer;
    std::set<int64_t> stages;
  };
  const KeptPlace& kept_place(const std::string& name) const;  // UserError naming the nearest
  void remember_kept(const std::vector<Buffer>& buffers, int64_t stage);
  int64_t num_stages() const { return options_.mesh.size_of("stage"); }
  int64_t stage_of(int64_t rank) const { return options_.mesh.coordinate(rank, "stage"); }
  Group same_rank_of_stages(int64_t rank) const;
  void begin_timelines(LoadedPlan& loaded) const;
  // Gives every stage the results that any has; `waited`: for letters, in the seconds since `began`.
  void share_over_stages(LoadedPlan& loaded, Communicator& comm, double began, double waited) const;
  int64_t first_rank() const { return world_->local_ranks()[0]; }
  void check_same_program(const Plan& plan) const;
  void check_same_inputs(const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars) const;
  Block shard(const Buffer& buffer, int64_t rank) const;

  EngineOptions options_;
  std::shared_ptr<World> world_;
  std::vector<std::unique_ptr<RankMemory>> memory_;
  std::map<std::string, KeptPlace> kept_;
  std::vector<std::unique_ptr<ThreadPool>> pools_;
  bool recording_ = false;
  int64_t num_loaded_ = 0;
};

}  // namespace mw
