// Random Programs, rules and meshes: what the passes make of them gives the same numbers, and no value is overwritten while it is read.
#include "base/error.h"
#include "ops/harness.h"
#include "passes/differentiate.h"
#include "passes/pipeline.h"
#include "passes/placement_checker.h"
#include "passes/random_programs.h"
#include "passes/spmd_evaluator.h"
#include "runner.h"

namespace mw {
namespace {

// False when the rules do not fit the sizes.
bool check_case(uint64_t seed) {
  std::mt19937_64 random(seed);
  const Program program = testing::random_program(random);
  PlanOptions options;
  options.mesh = testing::random_mesh(random);
  options.rules = testing::random_rules(random);
  options.backend.workspace_bytes = [](const Program&, const Op& op) { return op.def->name == "dot" ? 192 : 0; };
  const auto inputs = testing::random_inputs(program, seed);
  Plan plan;
  try {
    plan = plan_gradients(program, {}, options);
  } catch (const UserError& error) {
    const std::string message = error.what();
    if (message.find("does not divide") == std::string::npos && message.find("does not cut") == std::string::npos) throw;
    return false;
  }
  testing::check_placement(plan);
  testing::SpmdEvaluator ranks(plan, options.mesh);
  for (const ProgramInput& input : program.inputs) {
    if (input.kind == InputKind::kParameter && plan.shared.contains(input.name)) ranks.write(input.name, inputs.at(input.name));
  }
  ranks.run(inputs);
  const auto expected = evaluate_reference(differentiate(program), inputs, {.round_results = false});
  for (const auto& [name, array] : expected) {
    const double difference = testing::relative_difference(ranks.result(name), array);
    if (!(difference < 1e-9))
      throw testing::Failure("seed " + std::to_string(seed) + ", " + options.mesh.to_string() + ": " + name + " differs by " +
                             testing::show(difference));
  }
  return true;
}

}  // namespace

TEST(properties, random_programs_on_random_meshes) {
  int checked = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    try {
      checked += check_case(seed);
    } catch (const InternalError& error) {
      throw testing::Failure("seed " + std::to_string(seed) + ": " + error.what());
    }
  }
  EXPECT(checked > 150);
}

}  // namespace mw
