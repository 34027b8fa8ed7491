// Which collectives a training step needs: golden lists (tests/golden/collectives, see golden.h) and the facts that must hold of them.
#include <algorithm>

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

void check_golden(const std::string& name, const Plan& plan) { testing::expect_golden("collectives/" + name + ".txt", list_collectives(plan, Sources::kWithout)); }

struct Line {
  std::string piece, op, scope;
  Type operand;
};

std::vector<Line> collectives(const Plan& plan) {
  std::vector<Line> lines;
  for (const Piece& piece : plan.pieces) {
    for (const Op& op : piece.program.ops) {
      if (!communicates(op)) continue;
      lines.push_back({piece_title(piece), std::string(op.def->name), piece.program.scopes[static_cast<size_t>(op.scope)], piece.program.type(op.operands[0])});
    }
  }
  return lines;
}

int64_t count(const Plan& plan, const std::string& piece, const std::string& op, const std::string& scope, bool activations) {
  const std::vector<Line> lines = collectives(plan);
  return std::count_if(lines.begin(), lines.end(), [&](const Line& line) {
    return line.piece.starts_with(piece) && line.op == op && line.scope.starts_with(scope) && line.operand.has("batch") == activations;
  });
}

}  // namespace

TEST(collectives, golden_lists) {
  check_golden("ddp_8_microbatches", plan_on({{"data", 2}}, {.model = {}, .batch = 16, .microbatches = 8}));
  check_golden("zero1", plan_on({{"data", 2}}, {}, named_rules("zero1")));
  check_golden("fsdp", plan_on({{"fsdp", 2}}));
  check_golden("tensor", plan_on({{"tensor", 2}}));
  check_golden("tensor_beyond_kv_heads", plan_on({{"tensor", 4}}));
  check_golden("fsdp_tensor_bf16", plan_on({{"fsdp", 2}, {"tensor", 2}}, {.model = {}, .dtype = DType::kBF16}));
}

}  // namespace mw
