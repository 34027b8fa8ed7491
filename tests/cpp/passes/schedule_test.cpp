// Collectives beside compute: where they start and end, what they may hold, and that nothing else changes.
#include "passes/schedule.h"

#include <algorithm>

#include "config/rules_file.h"
#include "exec/cpu/executor.h"
#include "golden.h"
#include "ops/ops.h"
#include "passes/explain.h"
#include "passes/placement_checker.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;
using Axes = std::vector<std::pair<std::string, int64_t>>;

PlanOptions options_on(const Axes& axes, int64_t most_in_flight, const Rules& rules = default_rules()) {
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.rules = rules;
  options.most_in_flight = most_in_flight;
  options.backend.workspace_bytes = [](const Program& program, const Op& op) {
    return cpu::workspace_bytes(program, op, {.isa = chosen_isa(), .threads = 1});
  };
  options.backend.has_kernel = cpu::has_kernel;
  return options;
}

const StepOptions kFourLayers{.model = {.num_layers = 4}, .batch = 8, .microbatches = 2};

// The most bytes that collectives hold at any point of any piece.
int64_t most_held(const Plan& plan, const BackendFacts& backend) {
  int64_t most = 0;
  for (const Piece& piece : plan.pieces) {
    std::vector<int64_t> change(piece.program.ops.size() + 1, 0);
    for (size_t i = 0; i < piece.program.ops.size(); ++i) {
      if (!piece.in_flight(i)) continue;
      const int64_t bytes = bytes_in_flight(piece.program, piece.program.ops[i], backend);
      change[i] += bytes;
      change[static_cast<size_t>(piece.finish[i])] -= bytes;
    }
    int64_t held = 0;
    for (const int64_t bytes : change) most = std::max(most, held += bytes);
  }
  return most;
}

int64_t count_in_flight(const Plan& plan) {
  int64_t count = 0;
  for (const Piece& piece : plan.pieces) {
    for (size_t i = 0; i < piece.program.ops.size(); ++i) count += piece.in_flight(i);
  }
  return count;
}

const Piece& piece_of(const Plan& plan, const std::string& title) {
  return *std::find_if(plan.pieces.begin(), plan.pieces.end(), [&](const Piece& p) { return piece_title(p) == title; });
}

// Index of the first (or last) op of `name` ("" for any that computes) in `scope`.
struct Range {
  size_t first = 0, last = 0;
};
Range ops_of(const Program& program, const std::string& scope, bool collectives) {
  Range range{program.ops.size(), 0};
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (!program.scopes[static_cast<size_t>(op.scope)].starts_with(scope) || op.def->view || communicates(op) != collectives) continue;
    range.first = std::min(range.first, i);
    range.last = i;
  }
  return range;
}

}  // namespace

TEST(schedule, no_bytes_no_overlap) {
  const PlanOptions options = options_on({{"fsdp", 2}}, 0);
  Plan before, after;
  PlanOptions watched = options;
  watched.observer = [&](std::string_view pass, const Plan& plan) { (pass == "fuse" ? before : after) = plan; };
  const Plan plan = plan_step(kFourLayers, watched);
  EXPECT_EQ(list_programs(before), list_programs(plan_step(kFourLayers, options)));
  EXPECT_EQ(count_in_flight(plan), 0);
}

// The order of what is added up does not change: the same numbers to the last bit, on every kind of mesh.
TEST(schedule, same_numbers) {
  const std::vector<std::pair<Axes, std::string>> cases{{{{"data", 2}}, ""},
                                                        {{{"data", 2}}, "zero1"},
                                                        {{{"fsdp", 2}}, ""},
                                                        {{{"tensor", 2}}, ""},
                                                        {{{"context", 2}}, ""},
                                                        {{{"data", 2}, {"fsdp", 2}}, ""},
                                                        {{{"fsdp", 2}, {"tensor", 2}}, ""}};
  for (const auto& [axes, rules] : cases) {
    const Rules table = rules.empty() ? default_rules() : find_rules(rules, "configs/rules");
    const StepOptions step{.model = {.tied = true}, .batch = 8, .microbatches = 2};
    const testing::StepNumbers expected = run_step(step, options_on(axes, 0, table));
    for (const int64_t bytes : {kOneLayer, int64_t{3000}, int64_t{1} << 40}) {
      const PlanOptions options = options_on(axes, bytes, table);
      const Plan plan = plan_step(step, options);
      testing::check_placement(plan);
      testing::expect_equal_numbers(run_step(step, plan, options.mesh), expected, 0);
    }
  }
}

TEST(schedule, holds_no_more_than_it_may) {
  for (const Axes& axes : {Axes{{"data", 2}}, Axes{{"fsdp", 2}}, Axes{{"fsdp", 2}, {"tensor", 2}}}) {
    int64_t seen = 0;
    for (const int64_t bytes : {64, 1000, 4000, 16000, 1 << 20}) {
      const PlanOptions options = options_on(axes, bytes);
      const Plan plan = plan_step(kFourLayers, options);
      testing::check_placement(plan);
      const int64_t held = most_held(plan, options.backend);
      EXPECT(held <= bytes);
      EXPECT(held >= seen);
      seen = held;
    }
    EXPECT(seen > 4000);
  }
}

// With the default bound a layer is gathered while the one before it computes, and reduced while the next one does.
TEST(schedule, one_layer_ahead_and_behind) {
  const Plan plan = plan_step(kFourLayers, options_on({{"fsdp", 2}}, kOneLayer));
  const Program& forward = piece_of(plan, "forward").program;
  for (int layer = 1; layer < 4; ++layer) {
    const Range gathers = ops_of(forward, "layers." + std::to_string(layer) + ".", true);
    const Range before = ops_of(forward, "layers." + std::to_string(layer - 1) + ".", false);
    EXPECT(gathers.first < before.last && gathers.first > before.first);
  }
  const Piece& backward = piece_of(plan, "backward (last)");
  size_t late = 0, reductions = 0;
  for (size_t i = 0; i < backward.program.ops.size(); ++i) {
    const Op& op = backward.program.ops[i];
    const std::string& scope = backward.program.scopes[static_cast<size_t>(op.scope)];
    if (op.def->name != "reduce_scatter" || !scope.starts_with("layers.")) continue;
    ++reductions;
    late += backward.in_flight(i);
  }
  EXPECT(reductions > 30);
  EXPECT_EQ(late, reductions);
}

// What nobody waits for ends with the piece, and a larger bound leaves it in flight longer.
TEST(schedule, unread_reductions_may_last_to_the_end) {
  const Plan plan = plan_step(kFourLayers, options_on({{"fsdp", 2}}, int64_t{1} << 40));
  const Piece& backward = piece_of(plan, "backward (last)");
  const auto end = static_cast<size_t>(*std::max_element(backward.finish.begin(), backward.finish.end()));
  for (size_t i = 0; i < backward.program.ops.size(); ++i) {
    const Op& op = backward.program.ops[i];
    if (op.def->name == "reduce_scatter" && backward.in_flight(i)) EXPECT(static_cast<size_t>(backward.finish[i]) + 100 > end);
    if (op.def->name == "all_gather") EXPECT(i < 100);
  }
}

// A parameter that the piece writes is read where it stands, before and never while it is written.
TEST(schedule, what_a_piece_writes_is_not_in_flight) {
  Builder b("update");
  const Type part{DType::kF32, {{"embed", 8}}};
  const Tensor w = b.parameter("w", part), kept = b.parameter("kept", part), x = b.input("x", part);
  b.output("y", exp(x));
  b.output("old", all_gather(w, "embed", {"fsdp:1:2"}, 2));
  b.output("z", all_gather(kept, "embed", {"fsdp:1:2"}, 2));
  b.output("w", w + x, OutputKind::kState);
  Plan plan;
  plan.pieces.push_back({.name = "update", .variant = "", .program = b.take()});
  plan = schedule(std::move(plan), 1 << 20, {});
  const Piece& piece = plan.pieces[0];
  verify(piece.program, "schedule");
  std::vector<std::string> names;
  for (const Op& op : piece.program.ops) names.emplace_back(op.def->name);
  EXPECT((names == std::vector<std::string>{"all_gather", "exp", "all_gather", "add"}));
  EXPECT((piece.finish == std::vector<int32_t>{4, -1, -1, -1}));
}

TEST(schedule, golden_lists) {
  const Plan plan = testing::plan_step({.model = {}, .batch = 8, .microbatches = 2}, options_on({{"fsdp", 2}}, kOneLayer));
  testing::expect_golden("collectives/fsdp_in_flight.txt", list_collectives(plan, Sources::kWithout));
}

}  // namespace mw
