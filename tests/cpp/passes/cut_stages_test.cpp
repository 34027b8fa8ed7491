// A pipeline's stages, run one piece at a time in the order in which they would work, make the gradients of the whole model.
#include "passes/cut_stages.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "base/error.h"
#include "exec/reference/evaluate.h"
#include "models/programs.h"
#include "models/registry.h"
#include "ops/harness.h"
#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;
using Arrays = std::map<std::string, HostArray>;

Program training_program(const StepOptions& step) {
  return differentiate(
      trace_loss(testing::tiny_llama(step.model), {.batch = step.batch / step.microbatches, .seq = step.seq, .dtype = step.dtype}));
}

// What the pieces of one Plan leave, microbatch by microbatch.
struct Stage {
  Arrays states, results;
  std::map<int32_t, Arrays> carried;  // by microbatch
};

Arrays inputs_of(const Program& program, const Arrays& batch, const Stage& stage, int32_t microbatch, int64_t microbatches) {
  Arrays inputs;
  for (const ProgramInput& input : program.inputs) {
    if (input.kind == InputKind::kCarried) {
      inputs[input.name] = stage.carried.at(microbatch).at(input.name);
    } else if (input.kind == InputKind::kInput) {
      const HostArray& whole = batch.at(input.name);
      const int64_t rows = whole.type.has("batch") ? whole.type.size_of("batch") / microbatches : 0;
      inputs[input.name] = rows > 0 ? testing::block_of(whole, "batch", microbatch * rows, rows) : whole;
    } else {
      inputs[input.name] = stage.states.at(input.name);
    }
  }
  return inputs;
}

void run_piece(const Piece& piece, const RunRow& row, const Arrays& batch, Stage& stage, int64_t microbatches) {
  const Arrays outputs =
      evaluate_reference(piece.program, inputs_of(piece.program, batch, stage, row.microbatch, microbatches), {.round_results = false});
  for (const ProgramOutput& output : piece.program.outputs) {
    Arrays& to = output.kind == OutputKind::kCarried ? stage.carried[row.microbatch]
                 : output.kind == OutputKind::kState ? stage.states
                                                     : stage.results;
    to[output.name] = outputs.at(output.name);
  }
}

// All stages as they would run together; mail arrives among the carried values of its microbatch.
std::vector<Stage> run_stages(const StagePlans& plans, PipelineOrder order, const PipelineShape& shape, const StepOptions& step) {
  const Arrays batch = testing::batch_inputs(step);
  std::vector<Stage> stages;
  std::vector<std::vector<StageRow>> rows;
  for (int64_t s = 0; s < shape.stages; ++s) {
    stages.push_back({.states = testing::initial_states(step), .results = {}, .carried = {}});
    rows.push_back(stage_order(order, shape, s));
  }
  const PlayedPipeline played = play_pipeline(rows, shape, {});
  std::vector<std::tuple<double, size_t, size_t>> turns;
  for (size_t s = 0; s < rows.size(); ++s) {
    for (size_t i = 0; i < rows[s].size(); ++i) turns.emplace_back(played.start[s][i], s, i);
  }
  std::sort(turns.begin(), turns.end());
  std::map<std::tuple<int64_t, std::string, int64_t>, HostArray> on_the_way;  // to a stage, of a microbatch
  for (const auto& [time, s, i] : turns) {
    const Plan& plan = plans.stages[s];
    const RunRow& row = plan.order[i];
    const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
    Arrays& carried = stages[s].carried[row.microbatch];
    for (const Mail& mail : piece.receives) {
      const auto at = on_the_way.find({static_cast<int64_t>(s), mail.name, row.microbatch});
      MW_CHECK(at != on_the_way.end(), mail.name, " has not come");
      carried[mail.name] = std::move(at->second);
      on_the_way.erase(at);
    }
    run_piece(piece, row, batch, stages[s], step.microbatches);
    for (const Mail& mail : piece.sends) {
      const bool added =
          on_the_way.emplace(std::tuple(int64_t{mail.stage}, mail.name, int64_t{row.microbatch}), carried.at(mail.name)).second;
      MW_CHECK(added, mail.name, " is sent twice");
    }
  }
  MW_CHECK(on_the_way.empty(), "mail that nobody takes: ", std::get<1>(on_the_way.begin()->first));
  return stages;
}

void check(const StepOptions& step, PipelineOrder order, const PipelineShape& shape) {
  const Program training = training_program(step);
  const StagePlans plans = cut_into_stages(training, order, shape);
  const std::vector<Stage> stages = run_stages(plans, order, shape, step);
  // One rank, microbatch by microbatch.
  const Plan whole = cut(training, Builder("update").take(), step.microbatches);
  Stage alone{.states = testing::initial_states(step), .results = {}, .carried = {}};
  for (const RunRow& row : whole.order) {
    const Piece& piece = whole.pieces[static_cast<size_t>(row.piece)];
    if (piece.name != "update") run_piece(piece, row, testing::batch_inputs(step), alone, step.microbatches);
  }
  for (const auto& [name, expected] : alone.states) {
    if (name.rfind(kGradientPrefix, 0) != 0) continue;
    std::optional<HostArray> found;
    for (const Stage& stage : stages) {
      const auto at = stage.states.find(name);
      if (at == stage.states.end()) continue;
      if (!found) {
        found = at->second;
      } else {
        for (size_t i = 0; i < found->data.size(); ++i) found->data[i] += at->second.data[i];
      }
    }
    EXPECT(found.has_value());
    EXPECT(testing::relative_difference(*found, expected) < 1e-9);
  }
  for (const auto& [name, expected] : alone.results) {
    int made = 0;
    for (const Stage& stage : stages) {
      const auto at = stage.results.find(name);
      if (at == stage.results.end()) continue;
      ++made;
      EXPECT(testing::relative_difference(at->second, expected) < 1e-9);
    }
    EXPECT_EQ(made, 1);
  }
}

}  // namespace

TEST(cut_stages, gradients_are_those_of_one_rank) {
  for (const PipelineOrder order : {PipelineOrder::kGpipe, PipelineOrder::k1F1B, PipelineOrder::kZeroBubble}) {
    for (const int64_t stages : {1, 2, 3}) check({.model = {.num_layers = 3}, .batch = 8, .microbatches = 4}, order, {stages, 1, 4});
  }
  check({.model = {.num_layers = 5}, .batch = 8, .microbatches = 4}, PipelineOrder::kInterleaved, {2, 2, 4});
  check({.model = {.num_layers = 6}, .batch = 6, .microbatches = 3}, PipelineOrder::kInterleaved, {3, 2, 3});
}

TEST(cut_stages, a_tied_embedding_is_on_the_first_and_the_last_stage) {
  const StepOptions step{.model = {.num_layers = 4, .tied = true}, .batch = 4, .microbatches = 2};
  for (const PipelineOrder order : {PipelineOrder::k1F1B, PipelineOrder::kZeroBubble}) check(step, order, {4, 1, 2});
  const StagePlans plans = cut_into_stages(training_program(step), PipelineOrder::k1F1B, {4, 1, 2});
  EXPECT_EQ(plans.shared_parameters.size(), size_t{1});
  EXPECT((plans.shared_parameters.begin()->second == std::vector<int64_t>{0, 3}));
}

// Between neighbours goes the residual stream, and its gradient back; weights are on one stage only.
TEST(cut_stages, one_value_goes_each_way) {
  const StepOptions step{.model = {.num_layers = 4}, .batch = 4, .microbatches = 2};
  const StagePlans plans = cut_into_stages(training_program(step), PipelineOrder::k1F1B, {4, 1, 2});
  std::set<std::string> parameters;
  for (size_t s = 0; s < 4; ++s) {
    std::set<std::string> own;
    for (const Piece& piece : plans.stages[s].pieces) {
      const bool forward = piece.name == "forward", backward = piece.name == "backward";
      EXPECT_EQ(piece.receives.size(), size_t{(forward && s > 0) || (backward && s < 3)});
      EXPECT_EQ(piece.sends.size(), size_t{(forward && s < 3) || (backward && s > 0)});
      for (const Mail& mail : piece.receives) EXPECT_EQ(int64_t{mail.stage}, static_cast<int64_t>(forward ? s - 1 : s + 1));
      for (const ProgramInput& input : piece.program.inputs) {
        if (input.kind == InputKind::kParameter) own.insert(input.name);
      }
    }
    for (const std::string& name : own) EXPECT(parameters.insert(name).second);
  }
  EXPECT_EQ(parameters.size(), model_parameters(testing::tiny_llama(step.model), DType::kF32).size());
}

TEST(cut_stages, errors) {
  EXPECT_ERROR(
      UserError, { cut_into_stages(training_program({.model = {.num_layers = 3}}), PipelineOrder::kInterleaved, {2, 2, 2}); },
      "a model of 3 layers cannot be cut into 4 parts (stages times chunks); expected at most 3");
}

}  // namespace mw
