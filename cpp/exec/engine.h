// Engine: the ranks of a mesh in this process, their memory, and the Plans they run. Arrays go in and come out whole; each rank takes
// its own part by the layouts in the Plan.
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
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/threads.h"
#include "exec/cpu/executor.h"
#include "exec/memory.h"
#include "exec/shards.h"
#include "ir/plan.h"

namespace mw {

struct EngineOptions {
  Mesh mesh;
  int threads = 0;  // of all ranks together; 0: the CPUs that this process may use
};

// A whole array, row-major. Batch fields hold the rows of all microbatches, one after the other.
struct WholeArray {
  Type type;
  const void* data;
};

// A Plan bound to the memory of every rank.
struct LoadedPlan {
  Plan plan;
  double expert_load = 0;  // of the last run: the most rows of experts that a rank had to work on, as a multiple of their mean
  std::vector<std::unique_ptr<cpu::Executor>> ranks;
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
  explicit Engine(EngineOptions options);
  ~Engine();

  const Mesh& mesh() const { return options_.mesh; }
  cpu::KernelEnvironment environment() const;
  int threads() const { return options_.threads; }
  int threads_per_rank() const;

  // Allocates what the Plan needs beyond what is there and binds it. Plans are run one at a time.
  std::unique_ptr<LoadedPlan> load(Plan plan);

  // Runs all rows of the Plan's order. `before_row` (rank 0's thread) may stop the run before a row by returning false. TooManyExpertRows,
  // the same on all ranks, before `update` and before anything is handed out.
  using RowHook = std::function<bool(const RunRow&, const Piece&)>;
  void run(LoadedPlan& loaded, const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars,
           const RowHook& before_row = nullptr);

  // Called for every op of rank `rank` while it is set; null ends it.
  using OpObserver = std::function<void(int64_t rank, const Program&, const Op&, const cpu::KernelRun&)>;
  void observe(LoadedPlan& loaded, OpObserver observer);

  // Kept buffers (parameters, optimizer state): blocks of the whole array; the types must agree.
  bool has_kept(const std::string& name) const { return memory_[0]->kept.find(name) != nullptr; }
  const Buffer& kept_buffer(const std::string& name) const { return memory_[0]->kept.get(name).buffer; }
  void write_kept(const std::string& name, const Block& block, const void* data);
  void read_kept(const std::string& name, const Block& block, void* data) const;
  void write_kept(const std::string& name, const void* whole) { write_kept(name, Block::whole(kept_buffer(name).global_type), whole); }
  void read_kept(const std::string& name, void* whole) const { read_kept(name, Block::whole(kept_buffer(name).global_type), whole); }
  // Allocates buffers that no Plan names yet (weights before the first run).
  void ensure_kept(const std::vector<Buffer>& buffers);

  // Frees the kept buffers whose names begin so; Plans that name them must be gone.
  void forget_kept(const std::string& prefix);

  // A result of the last run: results are whole on every rank.
  const Type& result_type(const LoadedPlan& loaded, const std::string& name) const;
  const std::byte* result(const LoadedPlan& loaded, const std::string& name) const;
  double scalar(const LoadedPlan& loaded, const std::string& name) const;

  RankMemory& memory(int64_t rank) { return *memory_.at(static_cast<size_t>(rank)); }

 private:
  Block shard(const Buffer& buffer, size_t rank) const;

  EngineOptions options_;
  ThreadWorld world_;
  std::vector<std::unique_ptr<RankMemory>> memory_;
  std::vector<std::unique_ptr<ThreadPool>> pools_;
};

}  // namespace mw
