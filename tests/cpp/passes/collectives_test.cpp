// Which collectives a training step needs: golden lists (tests/golden/collectives, see golden.h) and the facts that must hold of them.
#include <algorithm>

#include "config/rules_file.h"
#include "golden.h"
#include "passes/explain.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;
using Axes = std::vector<std::pair<std::string, int64_t>>;

Plan plan_on(const Axes& axes, const StepOptions& step = {}, const Rules& rules = default_rules()) {
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.rules = rules;
  return plan_step(step, options);
}

void check_golden(const std::string& name, const Plan& plan) {
  testing::expect_golden("collectives/" + name + ".txt", list_collectives(plan, Sources::kWithout));
}

struct Line {
  std::string piece, op, scope;
  Type operand;
};

std::vector<Line> collectives(const Plan& plan) {
  std::vector<Line> lines;
  for (const Piece& piece : plan.pieces) {
    for (const Op& op : piece.program.ops) {
      if (!communicates(op)) continue;
      lines.push_back({piece_title(piece), std::string(op.def->name), piece.program.scopes[static_cast<size_t>(op.scope)],
                       piece.program.type(op.operands[0])});
    }
  }
  return lines;
}

bool is_activation(const Line& line) { return line.operand.has("batch"); }

int64_t count(const Plan& plan, const std::string& piece, const std::string& op, const std::string& scope, bool activations) {
  const std::vector<Line> lines = collectives(plan);
  return std::count_if(lines.begin(), lines.end(), [&](const Line& line) {
    return line.piece.starts_with(piece) && line.op == op && line.scope.starts_with(scope) && is_activation(line) == activations;
  });
}

}  // namespace

TEST(collectives, golden_lists) {
  check_golden("ddp_8_microbatches", plan_on({{"data", 2}}, {.model = {}, .batch = 16, .microbatches = 8}));
  check_golden("zero1", plan_on({{"data", 2}}, {}, find_rules("zero1", "configs/rules")));
  check_golden("fsdp", plan_on({{"fsdp", 2}}));
  check_golden("tensor", plan_on({{"tensor", 2}}));
  check_golden("tensor_beyond_kv_heads", plan_on({{"tensor", 4}}));
  check_golden("context", plan_on({{"context", 2}}));
  check_golden("fsdp_tensor_bf16", plan_on({{"fsdp", 2}, {"tensor", 2}}, {.model = {}, .dtype = DType::kBF16}));
}

// Weights are gathered and their gradients scattered; no activation moves.
TEST(collectives, fsdp_moves_parameters_only) {
  for (const Line& line : collectives(plan_on({{"fsdp", 2}}))) EXPECT(!is_activation(line));
  for (const Line& line : collectives(plan_on({{"data", 2}, {"fsdp", 2}}))) EXPECT(!is_activation(line));
}

// Keys and values are gathered for attention, and the gradients of keys and values scattered; all else stays.
TEST(collectives, context_moves_keys_and_values) {
  for (const Line& line : collectives(plan_on({{"context", 2}})))
    EXPECT(!is_activation(line) || line.operand.has("kv_heads") == !line.operand.has("q_per_kv"));
}

// As a ring: keys, values and segments go n - 1 steps forward; back, keys and values as many, and their gradients n (segments went for the
// layer above). Nothing is gathered.
TEST(collectives, a_ring_of_keys_and_values) {
  Rules rules = default_rules();
  rules.context_attention = ContextAttention::kRing;
  const Plan plan = plan_on({{"context", 4}}, {}, rules);
  EXPECT_EQ(count(plan, "forward", "ring_shift", "layers.0.attention.context", true), 9);
  EXPECT_EQ(count(plan, "backward", "ring_shift", "layers.0.attention.context", true), 14);
  for (const char* op : {"all_gather", "reduce_scatter"}) EXPECT_EQ(count(plan, "", op, "layers.0.attention", true), 0);
}

// x is gathered once for query, key and value and once for gate and up; out and down leave a partial sum that the residual add scatters.
TEST(collectives, tensor_parallel_layer) {
  const Plan plan = plan_on({{"tensor", 2}}, {.model = {.num_layers = 3}});
  for (const std::string layer : {"layers.0", "layers.1", "layers.2"}) {
    EXPECT_EQ(count(plan, "forward", "reduce_scatter", layer, true), 2);
    EXPECT_EQ(count(plan, "forward", "all_gather", layer, true), 2);
    EXPECT_EQ(count(plan, "backward", "reduce_scatter", layer, true), 2);
    EXPECT_EQ(count(plan, "backward", "all_gather", layer, true), 4);
    for (const char* op : {"all_reduce", "all_to_all"}) EXPECT_EQ(count(plan, "", op, layer, true), 0);
    for (const char* op : {"reduce_scatter", "all_gather", "all_to_all"}) EXPECT_EQ(count(plan, "", op, layer, false), 0);
  }
  for (const Line& line : collectives(plan)) EXPECT(is_float(line.operand.dtype));  // no token ids
}

TEST(collectives, ddp_reduces_each_gradient_once_per_step) {
  const StepOptions step{.model = {}, .batch = 16, .microbatches = 8};
  const Plan plan = plan_on({{"data", 2}}, step);
  const testing::StepNumbers numbers = run_step(step, plan, Mesh({{"data", 2}}));
  EXPECT_EQ(numbers.traffic.size(), size_t{1});
  EXPECT_EQ(numbers.traffic.at("all_reduce").calls, static_cast<int64_t>(numbers.gradients.size()) + 1);  // and the loss
}

TEST(collectives, weights_move_in_their_own_dtype) {
  for (const Line& line : collectives(plan_on({{"fsdp", 2}, {"tensor", 2}}, {.model = {}, .dtype = DType::kBF16}))) {
    if (line.op == "all_gather" && line.operand.dims.size() > 2) EXPECT(line.operand.dtype == DType::kBF16);
  }
}

TEST(collectives, zero3_stores_a_quarter) {
  int64_t whole = 0, local = 0;
  const Plan plan = plan_on({{"data", 4}}, {}, find_rules("zero3", "configs/rules"));
  for (const Buffer& buffer : plan.kept) {
    if (buffer.role != BufferRole::kParameter) continue;
    whole += buffer.global_type.bytes();
    local += buffer.type.bytes();
  }
  EXPECT_EQ(4 * local, whole);
}

TEST(collectives, a_list_names_source_and_scope) {
  const std::string text = list_collectives(plan_on({{"tensor", 2}}));
  EXPECT(text.find("forward  all_gather seq over tensor=2  f32[batch=8, seq=4, embed=16] -> f32[batch=8, seq=8, embed=16]  2048 bytes  "
                   "layers.0.attention.query  "
                   "cpp/layers/attention.cpp:") != std::string::npos);
}

}  // namespace mw
