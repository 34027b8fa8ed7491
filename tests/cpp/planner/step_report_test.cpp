#include "planner/step_report.h"

#include "base/error.h"
#include "config/model_lookup.h"
#include "passes/explain.h"
#include "planner/op_work.h"
#include "runner.h"

namespace mw {
namespace {

TrainPlanSpec tiny_step() {
  TrainPlanSpec spec{.config = find_model_config("tiny", "configs/models"), .mesh = Mesh(), .optimizer = {.clip = 1.0}, .remat = {}};
  spec.batch = 8;
  spec.seq = 32;
  return spec;
}

StepReport report_of(const TrainPlanSpec& spec) {
  return report_step(spec, plan_train_stages(spec, cpu_backend(kernel_environment(spec.mesh, 2))));
}

TEST(planner, bytes_around_a_ring) {
  EXPECT_EQ(ring_bytes("all_gather", 10, 4), 30.0);
  EXPECT_EQ(ring_bytes("reduce_scatter", 40, 4), 30.0);
  EXPECT_EQ(ring_bytes("all_to_all", 40, 4), 30.0);
  EXPECT_EQ(ring_bytes("all_reduce", 40, 4), 60.0);
}

TEST(planner, memory_is_the_peak_of_the_plan) {
  for (const int microbatches : {1, 2, 4}) {
    TrainPlanSpec spec = tiny_step();
    spec.microbatches = microbatches;
    spec.mesh = Mesh({{"fsdp", 2}});
    const Plan plan = plan_train_step(spec, kernel_environment(spec.mesh, 2));
    EXPECT_EQ(report_step(spec, {&plan, 1}).memory.peak(), plan.peak_bytes());
  }
}

TEST(planner, work_of_all_ranks_and_microbatches_is_counted) {
  const StepReport one = report_of(tiny_step());
  TrainPlanSpec spec = tiny_step();
  spec.microbatches = 4;
  const StepReport four = report_of(spec);
  EXPECT_EQ(one.model_flops, four.model_flops);
  EXPECT_NEAR(one.executed_flops, four.executed_flops, 0.05 * one.executed_flops);
  spec.mesh = Mesh({{"data", 2}});
  const StepReport ranks = report_of(spec);
  EXPECT_NEAR(ranks.executed_flops, four.executed_flops, 0.1 * one.executed_flops);
  EXPECT_EQ(ranks.num_ranks, 2);
}

TEST(planner, collectives_have_scope_source_and_number_of_calls) {
  TrainPlanSpec spec = tiny_step();
  spec.microbatches = 2;
  spec.mesh = Mesh({{"tensor", 2}});
  const StepReport report = report_of(spec);
  int64_t in_forward = 0;
  for (const PlannedCollective& c : report.collectives) {
    if (c.piece == "forward") EXPECT_EQ(c.calls, 2);
    in_forward += c.piece == "forward" && c.op == "reduce_scatter" && c.scope.starts_with("layers.0.");
    EXPECT_EQ(c.axes, "tensor");
    EXPECT(c.bytes_sent > 0);
    EXPECT(!c.source.empty());
  }
  EXPECT_EQ(in_forward, 2);  // after attention and after the mlp
}

TEST(planner, explains_any_pass) {
  const TrainPlanSpec spec = tiny_step();
  const cpu::KernelEnvironment environment = kernel_environment(spec.mesh, 1);
  EXPECT(explain_train_step(spec, environment, "cut").find("program forward {") != std::string::npos);
  EXPECT(explain_train_step(spec, environment, "before fuse").find("elementwise_chain") == std::string::npos);
  EXPECT(explain_train_step(spec, environment, "fuse").find("elementwise_chain") != std::string::npos);
  EXPECT(explain_train_step(spec, environment, "memory").find("peak") != std::string::npos);
  EXPECT_ERROR(UserError, { explain_train_step(spec, environment, "fuze"); }, "there is no pass 'fuze'", "did you mean 'fuse'");
}

TEST(planner, a_batch_divides_into_its_microbatches) {
  TrainPlanSpec spec = tiny_step();
  spec.microbatches = 3;
  EXPECT_ERROR(UserError, { report_of(spec); }, "a batch of 8 sequences does not divide into 3 microbatches", "6 or 9");
  spec.microbatches = 0;
  EXPECT_ERROR(UserError, { report_of(spec); }, "expected at least 1");
}

}  // namespace
}  // namespace mw
