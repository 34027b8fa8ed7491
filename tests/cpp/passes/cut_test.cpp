// Pieces, their run order, and accumulation over microbatches.
#include "passes/cut.h"

#include "base/error.h"
#include "models/programs.h"
#include "ops/harness.h"
#include "ops/ops.h"
#include "passes/differentiate.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::plan_step;
using testing::StepOptions;

std::string order_of(const Plan& plan) {
  std::string text;
  for (const RunRow& row : plan.order) {
    const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
    text += (text.empty() ? "" : " ") + piece.name + (piece.variant.empty() ? "" : "." + piece.variant) + std::to_string(row.microbatch);
  }
  return text;
}

StepOptions step_of(int microbatches, const OptimizerConfig& optimizer) {
  return {.model = {}, .batch = 6, .microbatches = microbatches, .optimizer = optimizer};
}

}  // namespace

TEST(cut, run_order) {
  EXPECT_EQ(order_of(plan_step(step_of(1, {}), {})), "forward0 backward.first_last0 update0");
  EXPECT_EQ(order_of(plan_step(step_of(2, {}), {})), "forward0 backward.first0 forward1 backward.last1 update0");
  EXPECT_EQ(order_of(plan_step({.model = {}, .batch = 8, .microbatches = 4}, {})),
            "forward0 backward.first0 forward1 backward.middle1 forward2 backward.middle2 forward3 backward.last3 update0");
}

TEST(cut, microbatches_equal_the_big_batch) {
  for (const OptimizerConfig& optimizer :
       {OptimizerConfig{.kind = "adamw", .weight_decay = 0.1, .clip = 0.5}, OptimizerConfig{.kind = "sgd", .weight_decay = 0.1},
        OptimizerConfig{.kind = "sgd", .weight_decay = 0.1, .momentum = 0.9, .clip = 0.5}}) {
    const testing::StepNumbers whole = run_step(step_of(1, optimizer), PlanOptions{});
    for (const int microbatches : {2, 3}) expect_equal_numbers(run_step(step_of(microbatches, optimizer), PlanOptions{}), whole, 1e-10);
  }
}

// The whole pipeline on one rank against the differentiated Program, evaluated as it was traced.
TEST(cut, pieces_equal_the_program) {
  const StepOptions step;
  const Program program = differentiate(trace_loss(testing::tiny_llama(step.model), {.batch = step.batch, .seq = step.seq}));
  std::map<std::string, HostArray> inputs, all = initial_states(step);
  for (auto& [name, array] : batch_inputs(step)) all[name] = array;
  for (const ProgramInput& input : program.inputs) inputs[input.name] = all.at(input.name);
  const auto results = evaluate_reference(program, inputs, {.round_results = false});
  const testing::StepNumbers numbers = run_step(step, PlanOptions{});
  EXPECT_NEAR(numbers.loss, results.at("loss").data[0], 1e-12);
  for (const auto& [name, gradient] : numbers.gradients)
    EXPECT(testing::relative_difference(gradient, results.at("gradient." + name)) < 1e-12);
}

// Other f32 scalars are summed over the microbatches like the loss.
TEST(cut, metrics) {
  const Type x_type{DType::kF32, {{"batch", 2}, {"embed", 3}}};
  const auto trace = [&] {
    Builder b("loss");
    const Tensor y = b.input("x", x_type) * b.parameter("w", {DType::kF32, {{"embed", 3}}});
    b.output("loss", reduce_sum(y, {"batch", "embed"}));
    b.output("squares", reduce_sum(square(y), {"batch", "embed"}));
    return b.take();
  };
  Builder update("update");
  update.output("grad_norm", sqrt(sum_of_squares({update.state("gradient.w", {DType::kF32, {{"embed", 3}}})})));
  PlanOptions options;
  options.microbatches = 3;
  const Plan plan = plan_training(trace(), update.take(), {}, options);
  testing::SpmdEvaluator ranks(plan, Mesh());
  ranks.write("w", {{DType::kF32, {{"embed", 3}}}, {1, 2, 3}});
  HostArray x{{DType::kF32, {{"batch", 6}, {"embed", 3}}}, std::vector<double>(18, 1.0)};
  ranks.run({{"x", x}});
  EXPECT_EQ(ranks.result("loss").data[0], 36.0);
  EXPECT_EQ(ranks.result("squares").data[0], 84.0);
  EXPECT_EQ(ranks.result("grad_norm").data[0], std::sqrt(3 * 36.0));
}

TEST(cut, a_result_that_cannot_be_summed_is_refused) {
  Builder b("loss");
  const Tensor w = b.parameter("w", {DType::kF32, {{"embed", 3}}});
  b.output("loss", reduce_sum(w, {"embed"}));
  b.output("large", binary("gt", w, constant(b, 2.0)));
  const Program training = differentiate(b.take());
  EXPECT_ERROR(UserError, { cut(training, Program(), 1); }, "result 'large' is u8[embed=3]; a training step can only return f32 values");
  EXPECT_ERROR(UserError, { cut(training, Program(), 0); }, "microbatches is 0; expected at least 1");
}

}  // namespace mw
