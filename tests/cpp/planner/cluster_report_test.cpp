#include "planner/cluster_report.h"

#include "base/error.h"
#include "base/file.h"
#include "config/model_lookup.h"
#include "runner.h"

namespace mw {
namespace {

Hardware h100() { return parse_hardware(read_file("configs/hardware/h100.json", kMostHardwareBytes), "h100.json"); }

TrainPlanSpec step_of(const std::string& model, int64_t layers, int microbatches) {
  TrainPlanSpec spec{.config = find_model_config(model, "configs/models"), .dtype = DType::kBF16, .mesh = Mesh({{"data", 2}})};
  spec.config.num_layers = layers;
  spec.microbatches = microbatches;
  spec.batch = 2 * microbatches;
  spec.seq = 512;
  return spec;
}

struct Pipeline {
  int64_t stages = 1;
  PipelineOrder order = PipelineOrder::k1F1B;
  int64_t interleave = 1;
};

ClusterReport in_stages(TrainPlanSpec spec, const Pipeline& pipeline) {
  spec.mesh = Mesh({{"data", 2}, {"stage", pipeline.stages}});
  spec.pipeline = pipeline.order;
  spec.chunks = pipeline.interleave;
  return report_on_cluster(spec, h100(), {});
}

TEST(planner, stages_share_the_work_of_the_whole) {
  const TrainPlanSpec spec = step_of("llama3-8b", 16, 8);
  const ClusterReport whole = report_on_cluster(spec, h100(), {});
  const ClusterReport cut = in_stages(spec, {.stages = 4});
  EXPECT_NEAR(cut.step.executed_flops, whole.step.executed_flops, 1e-3 * whole.step.executed_flops);  // each stage clips
  EXPECT_EQ(cut.step.num_ranks, int64_t{8});
  EXPECT_EQ(cut.step.num_parameters, whole.step.num_parameters);
  EXPECT_EQ(cut.step.model_flops, whole.step.model_flops);
  int64_t stages = 0, layers = 0, parameters = 0;
  for (const StageFacts& stage : cut.stages) {
    stages += stage.count;
    layers += stage.count * stage.layers;
    parameters += stage.count * stage.memory.parameters;
  }
  EXPECT_EQ(stages, int64_t{4});
  EXPECT_EQ(layers, int64_t{16});
  EXPECT_EQ(parameters, whole.step.memory.parameters);
}

TEST(planner, the_bubble_shrinks_with_the_order) {
  const auto bubble = [&](const Pipeline& pipeline, int microbatches) {
    const ClusterReport report = in_stages(step_of("llama3-8b", 16, microbatches), pipeline);
    EXPECT_NEAR(report.step_seconds, report.time.seconds + report.bubble_seconds, 1e-12);
    return report.bubble_seconds / report.step_seconds;
  };
  const double plain = bubble({.stages = 4}, 8);
  EXPECT_EQ(bubble({.stages = 1}, 8), 0.0);
  EXPECT(plain > 0.12 && plain < 3.0 / 11 + 0.02);  // (p - 1) / (m + p - 1), less what an update takes
  // 1F1B waits for what is sent in its steady phase too; gpipe only while it fills and drains.
  const double all_forwards_first = bubble({.stages = 4, .order = PipelineOrder::kGpipe}, 8);
  EXPECT(all_forwards_first < plain && all_forwards_first > 0.9 * plain);
  EXPECT(bubble({.stages = 4}, 32) < 0.5 * plain);
  EXPECT(bubble({.stages = 4, .order = PipelineOrder::kInterleaved, .interleave = 4}, 8) < 0.35 * plain);
  EXPECT(bubble({.stages = 4, .order = PipelineOrder::kZeroBubble}, 8) < 0.75 * plain);
}

TEST(planner, stages_hold_the_microbatches_in_flight) {
  const TrainPlanSpec spec = step_of("llama3-8b", 16, 8);
  const auto held = [&](const Pipeline& pipeline) { return in_stages(spec, pipeline).stages.front().microbatches_in_flight; };
  EXPECT_EQ(held({.stages = 4}), 4.0);
  EXPECT_EQ(held({.stages = 4, .order = PipelineOrder::kGpipe}), 8.0);
  EXPECT_EQ(held({.stages = 4, .order = PipelineOrder::kInterleaved, .interleave = 2}), (2 * 3 + 4 + 1) / 2.0);
}

TEST(planner, pipelines_that_do_not_exist) {
  const TrainPlanSpec spec = step_of("llama3-8b", 2, 2);
  const auto report = [&](const Pipeline& pipeline) { return in_stages(spec, pipeline); };
  EXPECT_ERROR(
      UserError, { report({.stages = 5}); }, "a model of 2 layers cannot be cut into 5 parts (stages times chunks); expected at most 4");
  EXPECT_ERROR(
      UserError, { report({.stages = 2, .interleave = 2}); }, "2 chunks, which pipeline=interleaved and gpipe take; found pipeline=1f1b");
  EXPECT_ERROR(
      UserError, { in_stages(step_of("llama3-8b", 4, 3), {.stages = 2, .order = PipelineOrder::kInterleaved, .interleave = 2}); },
      "found 3 microbatches, nearest that work: 2 or 4");
}

TEST(planner, tokens_that_cross_once_send_less) {
  TrainPlanSpec spec = step_of("mixtral-8x7b", 2, 1);
  spec.config.moe->experts_per_token = 4;
  spec.mesh = Mesh({{"expert", 16}});
  spec.config.moe->num_experts = 16;
  spec.batch = 16;
  spec.seq = 16384;
  const Hardware h = h100();
  const double rows = report_on_cluster(spec, h, {}).time.transfer_seconds;
  const double tokens = report_on_cluster(spec, h, {.tokens_cross_once = true}).time.transfer_seconds;
  EXPECT(tokens < 0.7 * rows && tokens > 0.2 * rows);  // two nodes of eight: 2 (1 - 2^-4) of 4 choices cross
}

TEST(planner, parts_of_a_sequence_do_its_whole_attention) {
  TrainPlanSpec spec = step_of("llama3-8b", 2, 1);
  spec.seq = 1024;
  spec.mesh = Mesh({{"context", 2}});
  const Hardware h = h100();
  const ClusterReport parts = report_on_cluster(spec, h, {});
  TrainPlanSpec whole = spec;
  whole.mesh = Mesh();
  const ClusterReport one = report_on_cluster(whole, h, {});
  EXPECT_EQ(parts.step.model_flops, one.step.model_flops);
  const auto attention = [](const ClusterReport& report) { return report.time.scopes.at("layers.*.attention.context"); };
  EXPECT_NEAR(attention(parts), attention(one) / 2, 0.05 * attention(one));
  EXPECT(parts.time.exposed.at("context") > 0);
}

}  // namespace
}  // namespace mw
