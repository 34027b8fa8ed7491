#include "exec/timeline.h"

#include "comm/threads.h"
#include "exec/engine.h"
#include "ops/ops.h"
#include "passes/pipeline.h"
#include "runner.h"

namespace mw {
namespace {

Plan two_products(const cpu::KernelEnvironment& environment) {
  Builder b("step");
  const Dim rows{"batch", 32}, in{"embed", 64}, out{"mlp", 48};
  const Tensor x = b.input("x", {DType::kF32, {rows, in}}), w = b.parameter("w", {DType::kF32, {out, in}});
  const Tensor y = dot(x, w, {"embed"});
  b.output("squares", sum_of_squares({dot(y, w, {"mlp"})}));
  PlanOptions options;
  options.backend = {
      .workspace_bytes = [environment](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, environment); },
      .has_kernel = cpu::has_kernel};
  return plan_single(b.take(), "step", options);
}

}  // namespace

TEST(exec_cpu, marks_of_a_timeline_follow_each_other) {
  Timeline timeline;
  timeline.begin(8);
  const int64_t start = timeline.last();
  timeline.row = 2;
  timeline.mark(SliceKind::kOp, 5);
  timeline.mark(SliceKind::kAgree, -1, int64_t{1} << 60);  // too short: part of the next
  timeline.mark(SliceKind::kSend);
  timeline.mark_in_flight(7, start);
  const std::vector<TimeSlice>& slices = timeline.slices();
  EXPECT_EQ(slices.size(), size_t{3});
  EXPECT_EQ(slices[0].begin, start);
  EXPECT(slices[0].end >= start && slices[0].kind == SliceKind::kOp && slices[0].op == 5 && slices[0].row == 2);
  EXPECT(slices[1].begin == slices[0].end && slices[1].kind == SliceKind::kSend && slices[1].op == -1);
  EXPECT(slices[2].begin == start && slices[2].end == timeline.last() && slices[2].kind == SliceKind::kInFlight);
  timeline.begin(8);
  EXPECT(timeline.slices().empty() && timeline.row == -1);
}

TEST(exec_cpu, a_recorded_run_leaves_a_slice_per_op_and_others_none) {
  Engine engine({.mesh = Mesh(), .threads = 2});
  const std::unique_ptr<LoadedPlan> loaded = engine.load(two_products(engine.environment()));
  const std::vector<float> x(32 * 64, 0.5f), w(48 * 64, 0.25f);
  engine.write_kept("w", w.data());
  const auto run = [&] {
    engine.run(*loaded, {{"x", {Type{DType::kF32, {{"batch", 32}, {"embed", 64}}}, x.data()}}}, {});
    return engine.scalar(*loaded, "squares");
  };
  const double expected = run();
  EXPECT(loaded->timelines.empty());
  engine.record(true);
  for (int i = 0; i < 2; ++i) {  // each run anew
    EXPECT_EQ(run(), expected);
    EXPECT_EQ(loaded->timelines.size(), size_t{1});
    const std::vector<TimeSlice>& slices = loaded->timelines[0].slices();
    EXPECT(slices.front().kind == SliceKind::kBegin && slices.back().kind == SliceKind::kEnd);
    int64_t ops = 0;
    for (size_t s = 1; s < slices.size(); ++s) {
      EXPECT_EQ(slices[s].begin, slices[s - 1].end);
      EXPECT_EQ(slices[s].row, slices[s].kind == SliceKind::kEnd ? -1 : 0);
      ops += slices[s].kind == SliceKind::kOp;
    }
    EXPECT_EQ(ops, std::ssize(loaded->ranks[0]->steps(0)));
  }
  engine.record(false);
  run();
  EXPECT(loaded->timelines.empty());
}

}  // namespace mw
