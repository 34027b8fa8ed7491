// What one optimizer step will need, read off its Plan: memory of one rank, FLOPs of all ranks, collectives. Nothing runs.
//
//   const StepReport report = report_step(spec, plan);
//   report.memory.peak()            bytes of one rank, as Plan::peak_bytes
#pragma once
#include <span>
#include <string>
#include <vector>

#include "exec/cpu/executor.h"
#include "exec/stage_mail.h"
#include "planner/memory_timeline.h"
#include "planner/train_plan.h"

namespace mw {

// Bytes of one rank. Peak is their sum.
struct StepMemory {
  int64_t parameters = 0;
  int64_t gradients = 0;        // accumulators, and gradients in the optimizer's layout, but for what lies where activations were
  int64_t optimizer_state = 0;  // moments and FP32 masters
  int64_t activations = 0;      // left by the forward for the backward, of all microbatches in flight
  int64_t batch = 0;            // batch fields and scalars
  int64_t scratch = 0;          // the largest arena of any piece
  int64_t results = 0;
  int64_t staging = 0;  // copies held while a checkpoint is saved
  int64_t host = 0;     // offloaded activations, which are not part of the peak

  int64_t peak() const { return parameters + gradients + optimizer_state + activations + batch + scratch + results + staging; }
};

// Equal collectives of one place in the program.
struct PlannedCollective {
  std::string piece;  // "backward (first)"
  std::string op;     // "all_gather"
  std::string axes;   // "fsdp", "data+fsdp"
  std::string type;   // what one rank gives
  std::string scope;
  std::string source;
  int64_t calls = 0;           // per step
  double bytes_sent = 0;       // by one rank in one call, around a ring; rows of experts as if all were chosen equally often
  double most_bytes_sent = 0;  // the same but for rows of experts: what the room for them allows
  bool recomputed = false;
};

// Collectives of one kind over the same axes, of one step.
struct AxisTraffic {
  std::string op;
  std::string axes;
  int64_t calls = 0;
  double bytes_sent = 0;  // by one rank
  double most_bytes_sent = 0;
};

struct StepReport {
  int64_t num_ranks = 1;
  int64_t num_parameters = 0;
  StepMemory memory;
  std::vector<ScopeBytes> activations;  // carried values by scope, layer numbers as `*`; largest first
  ExpertRowsPlanned expert_rows;        // of one rank, where rows travel to the ranks of their experts
  double model_flops = 0;               // docs/flops.md; all ranks
  double executed_flops = 0;            // what the kernels do, recompute and optimizer included, rows of experts at their mean; all ranks
  std::vector<AxisTraffic> traffic;
  std::vector<PlannedCollective> collectives;
};

StepMemory memory_of(const Plan& plan);

// Memory, activations and traffic are those of a rank of the stage that needs most memory.
StepReport report_step(const TrainPlanSpec& spec, std::span<const Plan> stages);
// What a rank with this Plan sends, mail to other stages as "send" over the axis `stage`; and the same sums of its last run as it counted
// them.
std::vector<AxisTraffic> planned_traffic(const Plan& plan);
std::vector<AxisTraffic> counted_traffic(const Plan& plan, const cpu::Executor& rank, const SentMail& mail);

// Text of the pieces as they are after a pass ("cut", "partition", ...) or "before PASS"; "collectives" and "memory" list those.
// UserError for another word, naming the nearest.
std::string explain_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const std::string& after);
inline std::string explain_train_step(const TrainPlanSpec& spec, const cpu::KernelEnvironment& environment, const std::string& after) {
  return explain_train_step(spec, cpu_backend(environment), after);
}

}  // namespace mw
