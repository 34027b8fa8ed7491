// Loss, gradients and weights after one step on a mesh equal those of one rank.
#include "passes/partition.h"

#include "base/error.h"
#include "config/rules_file.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;
using Axes = std::vector<std::pair<std::string, int64_t>>;

constexpr double kTolerance = 1e-9;  // references in double

const testing::StepNumbers& on_one_rank(const StepOptions& step, const std::string& key) {
  static std::map<std::string, testing::StepNumbers> known;
  const auto at = known.find(key);
  return at != known.end() ? at->second : known[key] = testing::run_step(step, PlanOptions{});
}

void check(const Axes& axes, const StepOptions& step, const std::string& key, const Rules& rules = default_rules()) {
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.rules = rules;
  try {
    testing::expect_equal_numbers(testing::run_step(step, options), on_one_rank(step, key), kTolerance);
  } catch (const std::exception& error) {
    throw testing::Failure(options.mesh.to_string() + ": " + error.what());
  }
}

const StepOptions kPlain{};
const StepOptions kThree{.model = {}, .batch = 12, .microbatches = 3};

}  // namespace

TEST(partition, data) { check({{"data", 2}}, kPlain, "plain"); }
TEST(partition, fsdp) { check({{"fsdp", 2}}, kPlain, "plain"); }
TEST(partition, hybrid) { check({{"data", 2}, {"fsdp", 2}}, kPlain, "plain"); }
TEST(partition, tensor) { check({{"tensor", 2}}, kPlain, "plain"); }
TEST(partition, tensor_beyond_kv_heads) { check({{"tensor", 4}}, kPlain, "plain"); }
TEST(partition, tensor_and_fsdp) { check({{"fsdp", 2}, {"tensor", 2}}, kPlain, "plain"); }
TEST(partition, eight_ranks) { check({{"data", 2}, {"fsdp", 2}, {"tensor", 2}}, kPlain, "plain"); }
TEST(partition, eight_ranks_tensor_beyond_kv_heads) { check({{"fsdp", 2}, {"tensor", 4}}, kPlain, "plain"); }

TEST(partition, context) {
  for (const Axes& axes : {Axes{{"context", 2}}, Axes{{"context", 4}}, Axes{{"data", 2}, {"context", 2}},
                           Axes{{"fsdp", 2}, {"context", 2}, {"tensor", 2}}, Axes{{"context", 2}, {"tensor", 4}}})
    check(axes, kPlain, "plain");
  check({{"context", 2}, {"tensor", 2}}, kThree, "three");
  for (const char* name : {"cp", "4d"}) check({{"fsdp", 2}, {"context", 2}}, kPlain, "plain", find_rules(name, "configs/rules"));
}

TEST(partition, context_as_a_ring) {
  Rules rules = default_rules();
  rules.context_attention = ContextAttention::kRing;
  for (const Axes& axes :
       {Axes{{"context", 2}}, Axes{{"context", 4}}, Axes{{"fsdp", 2}, {"context", 2}, {"tensor", 2}}, Axes{{"context", 2}, {"tensor", 4}}})
    check(axes, kPlain, "plain", rules);
  check({{"context", 4}, {"tensor", 2}}, kThree, "three", rules);
  check({{"context", 4}}, {.model = {.num_layers = 1, .biases = true, .window = 3}}, "biased", rules);
}

TEST(partition, a_sequence_that_zigzag_does_not_cut) {
  const auto on_mesh = [](const Axes& axes, const Rules& rules) {
    PlanOptions options;
    options.mesh = Mesh(axes);
    options.rules = rules;
    testing::run_step(kPlain, options);
  };
  EXPECT_ERROR(
      UserError, { on_mesh({{"context", 8}}, default_rules()); },
      "mesh axis 'context' of size 8 does not cut dim 'seq' of size 8 into two blocks for each rank; nearest sizes that work: 16");
  Rules rules = default_rules();
  for (RuleTable* table : {&rules.compute, &rules.parameters, &rules.gradients, &rules.optimizer})
    std::erase_if(*table, [](const RuleRow& row) { return row.dim == "kv_heads" || row.dim == "q_per_kv"; });
  EXPECT_ERROR(
      UserError, { on_mesh({{"context", 2}, {"tensor", 2}}, rules); },
      "the rules shard seq over context and tensor; expected rows above 'seq:tensor' that give that axis to other dims");
}

TEST(partition, zero_levels) {
  for (const char* name : {"zero1", "zero2", "zero3"}) check({{"data", 4}}, kPlain, "plain", find_rules(name, "configs/rules"));
}

TEST(partition, three_microbatches) {
  for (const char* name : {"ddp", "zero1", "zero2", "zero3"}) check({{"data", 2}}, kThree, "three", find_rules(name, "configs/rules"));
  check({{"fsdp", 2}, {"tensor", 2}}, kThree, "three");
  check({{"tensor", 4}}, kThree, "three");
}

TEST(partition, other_models) {
  const StepOptions tied{.model = {.qk_norm = true, .tied = true}};
  const StepOptions biased{.model = {.num_layers = 1, .biases = true, .window = 3}};
  for (const Axes& axes : {Axes{{"tensor", 4}}, Axes{{"data", 2}, {"fsdp", 2}, {"tensor", 2}}, Axes{{"context", 4}}}) {
    check(axes, tied, "tied");
    check(axes, biased, "biased");
  }
}

}  // namespace mw
