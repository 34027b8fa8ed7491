#include "passes/fuse.h"

#include "golden.h"
#include "ops/ops.h"
#include "passes/explain.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;

PlanOptions options_with(bool fuse) {
  PlanOptions options;
  options.fuse = fuse;
  return options;
}

// Ops that a backend runs (views are free), by piece: of one decoder layer, and of the rest.
std::string kernel_calls(const Plan& plan) {
  std::string text;
  for (const Piece& piece : plan.pieces) {
    int64_t layer = 0, rest = 0;
    std::map<std::string, int64_t> of_layer;
    for (const Op& op : piece.program.ops) {
      if (op.def->view) continue;
      const std::string& scope = piece.program.scopes[static_cast<size_t>(op.scope)];
      if (scope.starts_with("layers.1.") || scope.starts_with("update.model.layers.1.")) {
        ++layer;
        ++of_layer[std::string(op.def->name)];
      } else if (scope.find("layers.") == std::string::npos) {
        ++rest;
      }
    }
    text += piece_title(piece) + ": " + std::to_string(layer) + " per layer, " + std::to_string(rest) + " outside\n";
    for (const auto& [name, n] : of_layer) text += "  " + std::to_string(n) + " " + name + "\n";
  }
  return text;
}

}  // namespace

TEST(fuse, kernel_calls_per_layer) {
  const StepOptions step{.model = {}, .batch = 8, .microbatches = 2};
  testing::expect_golden("kernel_calls.txt", "before fuse\n" + kernel_calls(plan_step(step, options_with(false))) + "\nafter fuse\n" +
                                                 kernel_calls(plan_step(step, options_with(true))));
}

TEST(fuse, same_numbers) {
  for (const StepOptions& step :
       {StepOptions{.model = {}, .batch = 12, .microbatches = 3}, StepOptions{.model = {.biases = true}, .batch = 8, .microbatches = 1}}) {
    expect_equal_numbers(run_step(step, options_with(true)), run_step(step, options_with(false)), 1e-12);
  }
}

TEST(fuse, arithmetic_on_constants_alone) {
  Builder b("constants");
  const Type numbers{DType::kF32, {{"seq", 2}}};
  const Tensor factor = constant(b, 2.0) * constant(b, 3.0) * constant(b, 0.5);
  b.output("y", b.input("x", numbers) * broadcast_to(factor, numbers));
  const Plan plan = plan_single(b.take(), "constants", options_with(true));
  testing::SpmdEvaluator ranks(plan, Mesh());
  ranks.run({{"x", {numbers, {1, 4}}}});
  EXPECT(ranks.result("y").data == (std::vector<double>{3, 12}));
}

// A weight's gradient is added to its accumulator by the dot that makes it, and so is what a second reader adds to a gradient.
TEST(fuse, dots_accumulate) {
  const StepOptions step{.model = {}, .batch = 8, .microbatches = 2};
  const Plan plan = plan_step(step, options_with(true));
  for (const Piece& piece : plan.pieces) {
    if (piece.variant != "last") continue;
    int64_t dots = 0;
    for (const Op& op : piece.program.ops) {
      const std::string& scope = piece.program.scopes[static_cast<size_t>(op.scope)];
      dots += op.def->name == "dot" && op.operands.size() == 3 && scope.starts_with("layers.1.");
    }
    EXPECT_EQ(dots, 10);  // query, key, value, out, gate, up, down; of their inputs the key's, value's and up's
  }
}

}  // namespace mw
