#include "planner/cluster_report.h"

#include <algorithm>

#include "base/error.h"
#include "ir/layer_scope.h"
#include "models/flops.h"
#include "models/registry.h"
#include "planner/stages.h"

namespace mw {
namespace {

// A stage is planned as a model of its layers; what stands in front of the first and behind the last layer counts where it belongs.
struct Stage {
  int64_t first = 0, count = 1, layers = 0, layer = 0;  // `layer`: the first of its layers
  bool begins = true, ends = true;
};

RouterChoices choices_of(const ModelConfig& config) {
  if (!config.moe) return {};
  const MoeConfig& moe = *config.moe;
  return {moe.experts_per_token, static_cast<double>(moe.groups_selected) / static_cast<double>(moe.num_expert_groups)};
}

std::vector<Stage> stages_of(const ModelConfig& config, int64_t stages, int64_t chunks) {
  if (stages == 1) return {{.layers = config.num_layers}};
  const std::vector<int64_t> parts = layers_of_parts(config, stages, chunks);
  std::vector<int64_t> each(static_cast<size_t>(stages), 0);
  for (size_t part = 0; part < parts.size(); ++part) each[part % each.size()] += parts[part];
  std::vector<Stage> kinds;
  int64_t layer = 0;
  const int64_t dense = config.moe ? config.moe->first_dense_layers : 0;
  for (int64_t s = 0; s < stages; ++s) {
    const Stage stage{s, 1, each[static_cast<size_t>(s)], layer, s == 0, s + 1 == stages};
    layer += stage.layers;
    Stage* last = kinds.empty() ? nullptr : &kinds.back();
    if (last && !last->begins && !stage.ends && last->layers == stage.layers && last->layer >= dense) {
      ++last->count;
    } else {
      kinds.push_back(stage);
    }
  }
  return kinds;
}

// A step of the stage's layers alone, on a mesh that has no stages.
TrainPlanSpec spec_of(const TrainPlanSpec& spec, const Stage& stage) {
  TrainPlanSpec own = spec;
  std::vector<std::pair<std::string, int64_t>> sizes;
  for (const std::string& axis : Mesh::axis_names()) {
    if (axis != "stage") sizes.emplace_back(axis, spec.mesh.size_of(axis));
  }
  own.mesh = Mesh(sizes);
  own.pipeline = PipelineOrder::k1F1B;
  own.chunks = 1;
  own.config.num_layers = stage.layers;
  std::vector<std::string>& kinds = own.config.attention_pattern.layer_kinds;
  std::rotate(kinds.begin(), kinds.begin() + stage.layer % static_cast<int64_t>(kinds.size()), kinds.end());
  if (own.config.moe) own.config.moe->first_dense_layers = std::max<int64_t>(0, own.config.moe->first_dense_layers - stage.layer);
  if (!stage.ends) {
    own.config.mtp_layers = 0;
    own.losses.mtp = 0;
  }
  return own;
}

// Scopes, and names of parameters and of their states, that a stage has.
ScopeFilter filter_of(const Stage& stage) {
  if (stage.begins && stage.ends) return nullptr;
  return [stage](std::string_view scope) {
    const auto layer = parse_layer_scope(scope);
    if (layer && layer->layer < stage.layers) return true;
    if (scope.empty() || scope == "clip") return true;
    if (layer || scope.starts_with("mtp")) return stage.ends;
    return scope.find("embed") != std::string_view::npos ? stage.begins : stage.ends;
  };
}

// What carried values are there for at once: a forward of one run of layers leaves them, its backward on the weights drops them.
double in_flight(const std::vector<StageRow>& rows, int64_t chunks) {
  int64_t held = 0, most = 0;
  for (const StageRow& row : rows) {
    if (row.work == StageWork::kForward) most = std::max(most, ++held);
    if (row.work == StageWork::kBackward || row.work == StageWork::kBackwardWeight) --held;
  }
  return static_cast<double>(most) / static_cast<double>(chunks);
}

// Waiting of the slowest stage, as if all took as long as it: what the orders of all stages take beyond its work when they are played.
double bubble_of(PipelineOrder order, const PipelineShape& shape, const StageTimes& times) {
  std::vector<std::vector<StageRow>> orders;
  for (int64_t stage = 0; stage < shape.stages; ++stage) orders.push_back(stage_order(order, shape, stage));
  const double work =
      static_cast<double>(shape.chunks * shape.microbatches) * (times.forward + times.backward_input + times.backward_weight);
  return std::max(0.0, play_pipeline(orders, shape, times).seconds - work);
}

StepMemory memory_of_stage(const StepReport& report, const Plan& plan, const ScopeFilter& counts, const std::vector<PieceMemory>& over_time,
                           double copies) {
  if (!counts) return report.memory;
  StepMemory memory = report.memory;
  memory.parameters = memory.gradients = memory.optimizer_state = 0;
  for (const Buffer& buffer : plan.kept) {
    if (!counts(buffer.name)) continue;
    if (buffer.role == BufferRole::kParameter) memory.parameters += buffer.bytes;
    if (buffer.role == BufferRole::kAccumulator) memory.gradients += buffer.bytes;
    if (buffer.role == BufferRole::kOptimizerState) memory.optimizer_state += buffer.bytes;
  }
  int64_t carried = 0, batch = 0, scratch = 0;
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role == BufferRole::kInput) {
      batch += buffer.bytes;
    } else if (buffer.role == BufferRole::kAccumulator) {
      if (counts(buffer.name)) memory.gradients += buffer.bytes;  // the stages of a pipeline keep them
    } else if (counts(std::string_view(buffer.name).substr(0, buffer.name.find('/')))) {
      carried += buffer.bytes;
    }
  }
  for (const PieceMemory& piece : over_time) {
    for (const MemorySample& sample : piece.samples) {
      if (counts(sample.scope)) scratch = std::max(scratch, sample.scratch);
    }
  }
  memory.activations = static_cast<int64_t>(copies * static_cast<double>(carried));
  memory.batch = static_cast<int64_t>(copies * static_cast<double>(batch));
  memory.scratch = scratch;
  return memory;
}

double flops_of_stage(const Plan& plan, const StepTime& time, const ScopeFilter& counts) {
  double flops = 0;
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    const Program& program = plan.pieces[i].program;
    for (const Op& op : program.ops) {
      if (!counts || counts(program.scopes[static_cast<size_t>(op.scope)]))
        flops += usual_cost(program, op, plan.expert_rows).flops * static_cast<double>(time.pieces[i].runs);
    }
  }
  return flops;
}

}  // namespace

ClusterReport report_on_cluster(const TrainPlanSpec& spec, const Hardware& hardware, const EstimateSettings& settings) {
  const PipelineShape shape{spec.mesh.size_of("stage"), spec.chunks, spec.microbatches};
  check_pipeline(spec.pipeline, shape);
  const int64_t ranks = spec.mesh.size() / shape.stages;  // of one stage
  ClusterReport result;
  StageTimes times;
  double executed = 0, longest = -1, update = 0;
  int64_t most = -1;
  for (const Stage& stage : stages_of(spec.config, shape.stages, shape.chunks)) {
    const TrainPlanSpec own = spec_of(spec, stage);
    const ScopeFilter counts = filter_of(stage);
    const Plan plan = plan_train_step(own, backend_of(hardware, spec.mesh));
    const CostModel model(hardware, own.mesh, plan.expert_rows, settings, choices_of(own.config), shape.stages);
    StepReport report = report_step(own, {&plan, 1});
    StepTime time = time_step(plan, model, counts);
    std::vector<PieceMemory> over_time;
    for (size_t i = 0; i < plan.pieces.size(); ++i) over_time.push_back(memory_over_time(plan.pieces[i], time.pieces[i]));
    executed += static_cast<double>(stage.count * ranks) * flops_of_stage(plan, time, counts);
    const double copies = shape.stages == 1 ? 1 : in_flight(stage_order(spec.pipeline, shape, stage.first), shape.chunks);
    const StepMemory memory = memory_of_stage(report, plan, counts, over_time, copies);
    result.stages.push_back({stage.first, stage.count, stage.layers, copies, memory, time.seconds});
    update = std::max(update, time.pieces.back().seconds);
    if (memory.peak() + time.gathered_ahead > most) {
      most = memory.peak() + time.gathered_ahead;
      result.step = std::move(report);
      result.step.memory = memory;
    }
    if (time.seconds > longest) {
      longest = time.seconds;
      if (shape.stages > 1) {
        const int64_t bytes = spec.batch / spec.microbatches * spec.seq * spec.config.embedding_dim * dtype_bytes(spec.dtype) / ranks;
        const PieceTime &forward = time.pieces[0], &backward = time.pieces[1];
        const double chunks = static_cast<double>(shape.chunks);
        times = {.forward = forward.seconds / chunks,
                 .backward_input = std::max(0.0, backward.seconds - forward.weight_seconds) / chunks,
                 .backward_weight = forward.weight_seconds / chunks,
                 .send = model.send(static_cast<double>(bytes), ranks / spec.mesh.size_of("data")).seconds};
      }
      result.memory = std::move(over_time);
      result.time = std::move(time);
    }
  }
  if (shape.stages > 1) result.bubble_seconds = bubble_of(spec.pipeline, shape, times);
  result.step_seconds = result.time.seconds + result.bubble_seconds;
  if (shape.stages > 1 && settings.exact_stages) {
    const std::vector<Plan> plans = plan_train_stages(spec, backend_of(hardware, spec.mesh));
    for (StageFacts& stage : result.stages) {
      const auto first = plans.begin() + stage.first;
      stage.memory = memory_of(
          *std::max_element(first, first + stage.count, [](const Plan& a, const Plan& b) { return a.peak_bytes() < b.peak_bytes(); }));
    }
    result.step = report_step(spec, plans);
  } else if (shape.stages > 1) {
    result.step.num_parameters = num_elements(model_parameters(spec.config, spec.dtype));
    result.step.model_flops = training_flops(spec.config, static_cast<double>(spec.batch), static_cast<double>(spec.seq));
    result.step.executed_flops = executed;
    result.step.num_ranks = spec.mesh.size();
  }
  return result;
}

}  // namespace mw
