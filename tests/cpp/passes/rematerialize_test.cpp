// Recomputed values are the same bits, and what is carried shrinks as the policy says.
#include "passes/rematerialize.h"

#include "base/error.h"
#include "golden.h"
#include "passes/explain.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;
using Axes = std::vector<std::pair<std::string, int64_t>>;

Plan plan_with(const std::string& policy, const Axes& axes = {}, const StepOptions& step = {}) {
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.remat = parse_remat(policy);
  return plan_step(step, options);
}

// Activations that the forward leaves, by name.
std::map<std::string, int64_t> activations(const Plan& plan) {
  std::map<std::string, int64_t> bytes;
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role == BufferRole::kActivation) bytes[buffer.name] = buffer.type.bytes();
  }
  return bytes;
}

int64_t total(const std::map<std::string, int64_t>& bytes) {
  int64_t sum = 0;
  for (const auto& [name, n] : bytes) sum += n;
  return sum;
}

int64_t count_in(const std::map<std::string, int64_t>& bytes, const std::string& part) {
  int64_t n = 0;
  for (const auto& [name, size] : bytes) n += name.find(part) != std::string::npos;
  return n;
}

}  // namespace

TEST(rematerialize, gradients_are_the_same_bits) {
  const StepOptions step{.model = {.qk_norm = true}, .batch = 8, .microbatches = 2};
  for (const Axes& axes : {Axes{}, Axes{{"fsdp", 2}, {"tensor", 2}}}) {
    const Mesh mesh(axes);
    const testing::StepNumbers none = run_step(step, plan_with("none", axes, step), mesh, {.round_results = true});
    for (const char* policy : {"full", "minimal", "custom:query_proj,context,mlpwi_0", "custom:layers.*.mlp.up"}) {
      const testing::StepNumbers numbers = run_step(step, plan_with(policy, axes, step), mesh, {.round_results = true});
      EXPECT_EQ(numbers.loss, none.loss);
      for (const auto& [name, gradient] : none.gradients) {
        if (numbers.gradients.at(name).data != gradient.data) throw testing::Failure(std::string(policy) + " changes gradient." + name);
      }
    }
  }
}

// The residual that enters each layer and the final norm; outside the layers all is kept.
TEST(rematerialize, full_keeps_one_residual_per_layer) {
  const StepOptions three{.model = {.num_layers = 3}}, four{.model = {.num_layers = 4}};
  const auto small = activations(plan_with("full", {}, three)), large = activations(plan_with("full", {}, four));
  const int64_t residual = 8 * 8 * 16 * 4;
  EXPECT_EQ(large.size(), small.size() + 1);
  EXPECT_EQ(total(large), total(small) + residual);
  EXPECT_EQ(total(small), 5 * residual + 8 * 8 * 4);  // and the mask of the targets
  for (const char* inner : {".attention.", ".mlp.", "norm"}) EXPECT_EQ(count_in(large, "layers.1" + std::string(inner)), 0);
}

TEST(rematerialize, policies_are_ordered_by_what_they_keep) {
  const int64_t none = total(activations(plan_with("none"))), minimal = total(activations(plan_with("minimal"))),
                full = total(activations(plan_with("full")));
  EXPECT(full < minimal);
  EXPECT(minimal < none);
  const auto custom = activations(plan_with("custom:context"));
  EXPECT_EQ(count_in(custom, "attention.context"), count_in(activations(plan_with("none")), "attention.context"));
  EXPECT(total(custom) > full);
}

TEST(rematerialize, recompute_repeats_its_collectives) {
  testing::expect_golden("collectives/fsdp_tensor_remat_full.txt",
                         list_collectives(plan_with("full", {{"fsdp", 2}, {"tensor", 2}}), Sources::kWithout));
  const std::string text = list_collectives(plan_with("full", {{"tensor", 2}}));
  EXPECT(text.find("recomputed") != std::string::npos);
}

TEST(rematerialize, unknown_names_are_errors) {
  EXPECT_ERROR(
      UserError, { plan_with("custom:query_pro"); }, "remat policy: 'query_pro' matches nothing in this model",
      "did you mean 'query_proj'");
  EXPECT_ERROR(UserError, { plan_with("custom:layers.*.mlp.gat"); }, "'layers.*.mlp.gat' matches nothing");
  EXPECT_ERROR(UserError, { parse_remat("ful"); }, "unknown remat policy 'ful'", "did you mean 'full'");
  EXPECT_ERROR(UserError, { parse_remat("full:context"); }, "only custom takes names");
  EXPECT_ERROR(UserError, { parse_remat("custom:"); }, "names nothing");
}

}  // namespace mw
