// What a step takes on a cluster: StepReport, and the time of a step on named hardware, with stages where the model is cut into some.
//
//   const ClusterReport report = report_on_cluster(spec, hardware, settings);
#pragma once
#include "passes/stage_order.h"
#include "planner/memory_timeline.h"
#include "planner/step_report.h"

namespace mw {

// Stages that are alike.
struct StageFacts {
  int64_t first = 0, count = 1;  // stages first .. first + count - 1
  int64_t layers = 0;
  double microbatches_in_flight = 1;  // at most, of the first of them; one of several runs of layers counts as a share of a microbatch
  StepMemory memory;                  // of a rank of the fullest of them
  double seconds = 0;                 // of a step, without waiting for other stages
};

struct ClusterReport {
  StepReport step;  // memory, traffic and collectives: of a rank of the stage that needs most memory
  StepTime time;    // of the stage that takes longest
  double bubble_seconds = 0;
  double step_seconds = 0;
  std::vector<StageFacts> stages;
  std::vector<PieceMemory> memory;  // over the time of the pieces of `time`
};

// UserError as check_pipeline.
ClusterReport report_on_cluster(const TrainPlanSpec& spec, const Hardware& hardware, const EstimateSettings& settings);

}  // namespace mw
