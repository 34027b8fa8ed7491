// In what order the stages of a pipeline work, as a pure function, and what that order takes when it is played.
//
//   for (const StageRow& row : stage_order(PipelineOrder::k1F1B, {.stages = 4, .microbatches = 8}, stage)) ...
//
// A stage holds `chunks` runs of layers; run c of stage s is part c * stages + s of the model. A part's forward needs that of the part
// before it, its backward its own forward and the backward of the part behind it. Microbatches come in ascending order in every kind of
// work, so gradients are added up in the same order as without stages.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mw {

enum class PipelineOrder : uint8_t {
  kGpipe,        // all forwards, then all backwards (Huang et al. 2019)
  k1F1B,         // a forward, a backward, once the pipeline is full (Narayanan et al. 2019)
  kInterleaved,  // 1F1B over several runs of layers per stage (Narayanan et al. 2021)
  kZeroBubble,   // 1F1B with gradients of weights put where a stage would wait (Qi et al. 2024)
};
PipelineOrder parse_pipeline_order(std::string_view text);  // "gpipe", "1f1b", "interleaved", "zero_bubble"; UserError with the nearest
std::string to_string(PipelineOrder order);

enum class StageWork : uint8_t {
  kForward,
  kBackward,        // gradients of what came in and of weights
  kBackwardInput,   // of what came in alone
  kBackwardWeight,  // of weights, after kBackwardInput
};

// Whether nothing of the backward is left after it: gradients of weights are added up in it.
constexpr bool ends_backward(StageWork work) { return work == StageWork::kBackward || work == StageWork::kBackwardWeight; }

struct PipelineShape {
  int64_t stages = 1;
  int64_t chunks = 1;
  int64_t microbatches = 1;
  bool operator==(const PipelineShape&) const = default;
};

struct StageRow {
  StageWork work;
  int64_t chunk;
  int64_t microbatch;
  bool operator==(const StageRow&) const = default;
};

// UserError for sizes below 1, chunks without kInterleaved or kGpipe, kInterleaved with chunks and microbatches that the stages do not
// divide (naming the nearest).
void check_pipeline(PipelineOrder order, const PipelineShape& shape);
std::vector<StageRow> stage_order(PipelineOrder order, const PipelineShape& shape, int64_t stage);

// Microbatches whose forward some run of the stage has begun and whose last backward on it is not done, at most.
int64_t most_in_flight(const std::vector<StageRow>& rows);

// What one row takes, in seconds, for one chunk; backward = backward_input + backward_weight.
struct StageTimes {
  double forward = 1, backward_input = 1, backward_weight = 1;
  double send = 0;  // from stage to stage
};

struct PlayedPipeline {
  double seconds = 0;                      // until the last row of all stages ends
  double bubble = 0;                       // share of that in which a stage waits, mean of all stages
  std::vector<std::vector<double>> start;  // by stage and row
};

// Plays the orders of all stages against each other. InternalError naming the row that would wait forever.
PlayedPipeline play_pipeline(const std::vector<std::vector<StageRow>>& orders, const PipelineShape& shape, const StageTimes& times);

}  // namespace mw
