// Recomputed values are the same bits, and what is carried shrinks as the policy says.
#include "passes/rematerialize.h"

#include <set>

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
    std::vector<std::string> policies{"custom:query_proj,context,mlpwi_0", "custom:layers.*.mlp.up",
                                      "custom:query_proj=offload,mlpwi=device,decoder_layer_input=offload,out_proj=remat"};
    for (const std::string& policy : remat_policies()) {
      if (policy != "auto") policies.push_back(policy);
    }
    for (const std::string& policy : policies) {
      const testing::StepNumbers numbers = run_step(step, plan_with(policy, axes, step), mesh, {.round_results = true});
      EXPECT_EQ(numbers.loss, none.loss);
      for (const auto& [name, gradient] : none.gradients) {
        if (numbers.gradients.at(name).data != gradient.data) throw testing::Failure(policy + " changes gradient." + name);
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

// Names that a policy keeps, as parts of a layer's scope; all else of layer 1 is made again.
TEST(rematerialize, policies_keep_what_their_names_say) {
  const std::map<std::string, std::set<std::string>> expected{
      {"full", {}},
      {"save_qkv_proj", {"query", "key", "value"}},
      {"save_out_proj", {"out"}},
      {"save_dot_except_mlp", {"query", "key", "value", "out"}},
      {"save_dot_with_context_except_mlp", {"query", "key", "value", "context", "out"}},
      {"save_dot_except_mlpwi", {"query", "key", "value", "out"}},  // what `down` gives, only the residual's sum reads
      {"minimal", {"query", "key", "value", "out", "gate", "up"}},
      {"minimal_with_context", {"query", "key", "value", "context", "out", "gate", "up"}},
      {"minimal_flash", {"query", "key", "value", "context", "out", "gate", "up"}},
      {"custom:kv_proj,mlpact", {"key", "value", "activation"}},
      {"custom:qkv_proj,attention_out=device,mlpwi", {"query", "key", "value", "context", "gate", "up"}},
  };
  for (const auto& [policy, parts] : expected) {
    std::set<std::string> found;
    for (const auto& [name, bytes] : activations(plan_with(policy))) {
      if (!name.starts_with("layers.1.")) continue;
      const std::string scope = name.substr(0, name.find('/')), part = scope.substr(scope.rfind('.') + 1);
      if (part != "residual" && part != "output") found.insert(part);
    }
    for (const std::string& part : found) {
      if (!parts.contains(part)) throw testing::Failure(policy + " keeps " + part);
    }
    for (const std::string& part : parts) {
      if (!found.contains(part) && part != "out") throw testing::Failure(policy + " does not keep " + part);
    }
  }
}

// What is offloaded is the same bytes as what would be kept, and leaves the device between the pieces.
TEST(rematerialize, offloaded_values_wait_on_the_host) {
  for (const Axes& axes : {Axes{}, Axes{{"fsdp", 2}, {"tensor", 2}}}) {
    const Plan kept = plan_with("minimal", axes), offloaded = plan_with("minimal_offloaded", axes), full = plan_with("full", axes);
    int64_t on_host = 0, values = 0;
    for (const Buffer& buffer : offloaded.host) {
      EXPECT(buffer.name.starts_with("host.layers."));
      on_host += buffer.bytes;
      values += buffer.type.bytes();
    }
    EXPECT_EQ(on_host, offloaded.host_bytes);
    EXPECT_EQ(offloaded.carried_bytes, full.carried_bytes);
    EXPECT_EQ(total(activations(offloaded)) + values, total(activations(kept)));
    EXPECT_EQ(kept.host_bytes, 0);
    EXPECT_EQ(offloaded.peak_bytes(), offloaded.kept_bytes + offloaded.carried_bytes + offloaded.scratch_bytes + offloaded.result_bytes);
    // Sent as soon as it is made, fetched where it is first read.
    int64_t sent = 0, fetched = 0;
    for (const Piece& piece : offloaded.pieces) {
      const Program& program = piece.program;
      for (size_t i = 0; i < program.ops.size(); ++i) {
        const Op& op = program.ops[i];
        if (op.def->name == "to_host") {
          EXPECT_EQ(program.values[static_cast<size_t>(op.operands[0])].producer, static_cast<int32_t>(i) - 1);
          ++sent;
        }
        fetched += op.def->name == "from_host";
      }
    }
    EXPECT_EQ(sent, static_cast<int64_t>(offloaded.host.size()));
    EXPECT_EQ(fetched, sent);
  }
  const Plan inputs = plan_with("custom:decoder_layer_input=offload");
  EXPECT(inputs.carried_bytes < plan_with("full").carried_bytes);
  EXPECT_EQ(inputs.host.size(), 2u);  // of two layers
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
  EXPECT_ERROR(UserError, { parse_remat("minimal_flsh"); }, "did you mean 'minimal_flash'");
  EXPECT_ERROR(UserError, { parse_remat("custom:context=ofload"); }, "expected device, offload or remat", "did you mean 'offload'");
  EXPECT_ERROR(UserError, { parse_remat("custom:decoder_layer_input=remat"); }, "expected device or offload");
  EXPECT_ERROR(UserError, { plan_with("custom:moe_mlpwi_0"); }, "'moe_mlpwi_0' matches nothing in this model");
}

}  // namespace mw
