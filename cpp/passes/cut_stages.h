// cut_into_stages: from a differentiated Program and an update Program to the Plans of a pipeline's stages.
//
//   stage 0 of 2, 1f1b   F0 F1 B0 F2 B1 B2 update       forward   sends layers.1.output, backward receives its gradient
//   stage 1              F0 B0 F1 B1 F2 B2 update
//
// Layers are dealt out by their scopes: the embedding goes with the first part, all that follows the layers with the last one. What depends
// on the batch alone is made wherever it is read. A value that a later part reads is sent from part to part; a gradient goes the other way.
// A parameter that several stages use (a tied embedding) is on each of them, which adds up the gradient of its own uses alone; `update`
// then has to sum them (`shared_parameters`).
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ir/plan.h"
#include "passes/stage_order.h"

namespace mw {

struct StagePlans {
  std::vector<Plan> stages;
  std::vector<std::set<std::string>> parameters;  // that each stage reads or trains
  // Parameters on more than one stage: which ones, ascending.
  std::map<std::string, std::vector<int64_t>> shared_parameters;
};

// Of `shape.microbatches` microbatches, without the update (add_updates). `layers`: of each part; none: as even as they go. UserError
// where there are fewer layers than parts.
StagePlans cut_into_stages(const Program& training, PipelineOrder order, const PipelineShape& shape,
                           const std::vector<int64_t>& layers = {});

// Of a Program without a backward, which may have states (caches): one microbatch goes from part to part once. Pieces are called `name`.
StagePlans cut_single_into_stages(const Program& program, const std::string& name, int64_t stages, int64_t chunks,
                                  const std::vector<int64_t>& layers = {});

// Puts behind the rows of each stage the update that `trace` makes for it.
void add_updates(StagePlans& plans, const std::function<Program(int64_t stage)>& trace);

}  // namespace mw
