// Binds the pieces of a Plan to kernels of this backend and runs them. Binding chooses kernels and may allocate; running allocates nothing.
#pragma once
#include <memory>
#include <vector>

#include "comm/counted.h"
#include "exec/cpu/expert_exchange_kernels.h"
#include "exec/cpu/kernel.h"
#include "exec/memory.h"
#include "exec/timeline.h"
#include "ir/plan.h"

namespace mw::cpu {

// Workspace of the kernel of one op: place asks for it. InternalError when there is no kernel.
int64_t workspace_bytes(const Program& program, const Op& op, const KernelEnvironment& environment);
bool has_kernel(const OpDef& def);

class Executor {
 public:
  // `memory` must have reserved `plan`, and both must outlive the executor.
  Executor(const Plan& plan, RankMemory& memory, const Mesh& mesh, Communicator& communicator, KernelEnvironment environment);

  // Counts begin anew.
  void begin_run();
  void run(int32_t piece, int64_t microbatch, ThreadPool& pool);

  struct Step {
    size_t op;  // index in the piece's Program
    Kernel kernel;
    std::vector<Placement> operands, results;
    int64_t workspace;  // offset in scratch, -1: none
    bool collective = false;
    int64_t calls = 0;                                                   // of a collective, since begin_run
    double bytes_sent = 0;                                               // by this rank in these calls, around a ring
    double seconds = 0;                                                  // that these calls held up this rank
    std::function<std::unique_ptr<Transfer>(const KernelRun&)> start{};  // of a collective in flight: started in its place,
    std::function<void(const KernelRun&, Transfer&)> finish{};           // finished in front of a later step or at the end
    std::vector<size_t> finishes{};                                      // steps that are finished in front of this one
    std::unique_ptr<Transfer> transfer{};                                // under way
    int64_t started = 0;                                                 // when, on the timeline
  };
  const std::vector<Step>& steps(int32_t piece) const { return pieces_.at(static_cast<size_t>(piece)); }

  // Called after each op when set (check_finite); the run then is slower.
  std::function<void(const Program&, const Op&, const KernelRun&)> observer;
  // Every op is marked on it when set; it must outlive the runs.
  Timeline* timeline = nullptr;

  // Of this rank since begin_run.
  const ExpertLoad& expert_load() const { return expert_load_; }

 private:
  std::byte* address(const Placement& placement, int64_t microbatch) const;
  KernelRun bind(const Step& step, int64_t microbatch, ThreadPool& pool);
  void finish(Step& step, int64_t microbatch, ThreadPool& pool);

  const Plan& plan_;
  RankMemory& memory_;
  CountedCommunicator communicator_;
  ExpertLoad expert_load_;
  int64_t under_way_ = 0;         // collectives in flight
  std::vector<std::byte*> kept_;  // by index into plan.kept
  std::vector<std::vector<Step>> pieces_;
  std::vector<std::vector<size_t>> finished_last_;  // by piece: steps in flight to its end
  std::vector<const std::byte*> operand_pointers_;  // of the running step
  std::vector<std::byte*> result_pointers_;
};

}  // namespace mw::cpu
