// The stages of a pipeline as ranks that are threads: loss and gradients of a step are those of one rank, and what is sent is what was cut.
#include "passes/pipeline.h"

#include <map>
#include <set>
#include <tuple>

#include "base/error.h"
#include "comm/threads.h"
#include "exec/collect.h"
#include "exec/engine.h"
#include "exec/reference/evaluate.h"
#include "models/programs.h"
#include "models/registry.h"
#include "ops/harness.h"
#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/fuse.h"
#include "passes/lower.h"
#include "passes/place.h"
#include "passes/simplify.h"
#include "passes/training.h"
#include "runner.h"

namespace mw::testing {
namespace {

const StepOptions kStep{.model = {.num_layers = 4}, .batch = 8, .seq = 8, .microbatches = 4};

Program training_program(const StepOptions& step) {
  return differentiate(trace_loss(tiny_llama(step.model), {.batch = step.batch / step.microbatches, .seq = step.seq, .dtype = step.dtype}));
}

BackendFacts backend_of(const Engine& engine) {
  return {.workspace_bytes = [&](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, engine.environment()); },
          .has_kernel = cpu::has_kernel};
}

Plan finished(const Engine& engine, Plan plan) {
  const BackendFacts backend = backend_of(engine);
  return place(fuse(lower(simplify(std::move(plan)), backend)), backend);
}

using Bytes = std::vector<std::byte>;
Bytes bytes_of(const HostArray& array) {
  Bytes bytes(static_cast<size_t>(array.type.bytes()));
  for (size_t i = 0; i < array.data.size(); ++i) store_element(array.type.dtype, bytes.data(), static_cast<int64_t>(i), array.data[i]);
  return bytes;
}

// Of one step, as the engine takes it.
struct Batch {
  std::map<std::string, Bytes> bytes;
  std::map<std::string, WholeArray> inputs;
  std::map<std::string, double> scalars;

  explicit Batch(const StepOptions& step) {
    for (const auto& [name, array] : batch_inputs(step)) {
      if (array.type.dims.empty()) {
        scalars[name] = array.data[0];
      } else {
        inputs.emplace(name, WholeArray{array.type, bytes.emplace(name, bytes_of(array)).first->second.data()});
      }
    }
  }
};

struct Numbers {
  double loss = 0, bubble = 0;
  std::map<std::string, HostArray> gradients;  // summed over the ranks that have a part
  std::vector<int64_t> mailed;                 // bytes
};

// Weights go in and come out through every rank that keeps them.
Numbers run(Engine& engine, std::vector<Plan> plans, const StepOptions& step) {
  const auto loaded = engine.load(std::move(plans));
  for (const auto& [name, array] : initial_states(step)) {
    if (!engine.has_kept(name) || name.starts_with(kGradientPrefix)) continue;
    const Bytes given = bytes_of(array);
    Bytes found(given.size());
    engine.write_kept(name, given.data());
    engine.read_kept(name, found.data());
    EXPECT(found == given);
  }
  const Batch batch(step);
  int asked = 0;
  engine.run(*loaded, batch.inputs, batch.scalars, [&](const RunRow&, const Piece& piece) {
    asked += piece.name == "update";
    return true;
  });
  EXPECT_EQ(asked, 1);
  Numbers numbers{.loss = engine.scalar(*loaded, "loss"), .bubble = loaded->bubble, .gradients = {}, .mailed = {}};
  for (const SentMail& sent : loaded->mailed) numbers.mailed.push_back(sent.bytes);
  for (int64_t rank = 0; rank < engine.mesh().size(); ++rank) {
    for (const Buffer& buffer : loaded->plan_of(rank).kept) {
      if (!buffer.name.starts_with(kGradientPrefix)) continue;
      HostArray& sum = numbers.gradients.try_emplace(buffer.name, HostArray{buffer.type, {}}).first->second;
      sum.data.resize(static_cast<size_t>(buffer.type.elements()), 0.0);
      const std::byte* data = engine.memory(rank).kept.get(buffer.name).data;
      for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += load_element(buffer.type.dtype, data, static_cast<int64_t>(i));
    }
  }
  return numbers;
}

Numbers alone(const StepOptions& step) {
  Engine engine({.mesh = {}, .threads = 1});
  std::vector<Plan> plans;
  plans.push_back(finished(engine, cut(training_program(step), Builder("update").take(), step.microbatches)));
  return run(engine, std::move(plans), step);
}

std::vector<TrainedParameter> trained_by(const StepOptions& step, const std::set<std::string>& names) {
  std::vector<TrainedParameter> trained;
  for (const ParameterSpec& p : model_parameters(tiny_llama(step.model), step.dtype)) {
    if (names.contains(p.name)) trained.push_back({p.name, p.type, p.decays()});
  }
  return trained;
}

// The Plans of the stages, through all passes. Without `updates` the pieces before it are all there is.
std::vector<Plan> plans_of(const Engine& engine, const StepOptions& step, PipelineOrder order, int64_t chunks,
                           const std::string& remat = "none", bool updates = false) {
  PlanOptions options;
  options.mesh = engine.mesh();
  options.microbatches = step.microbatches;
  options.pipeline = order;
  options.chunks = chunks;
  options.remat = parse_remat(remat);
  options.backend = backend_of(engine);
  const int64_t last = engine.mesh().size_of("stage") - 1;
  const auto update_of = [&](const StagePlans& plans, int64_t stage) {
    if (!updates) return Builder("update").take();
    OverStages over{.axis = "stage:1:" + std::to_string(last + 1), .stages = last + 1};
    for (const auto& [name, stages] : plans.shared_parameters) {
      if (stage != 0 && stage != last) continue;
      over.summed[name] = "stage:" + std::to_string(last) + ":2";
      if (stage == last) over.counted_elsewhere.insert(name);
    }
    return trace_update(step.optimizer, trained_by(step, plans.parameters[static_cast<size_t>(stage)]), {}, over);
  };
  Program forward = trace_loss(tiny_llama(step.model), {.batch = step.batch / step.microbatches, .seq = step.seq, .dtype = step.dtype});
  return plan_training_stages(std::move(forward), update_of, {}, options);
}

Numbers in_stages(const StepOptions& step, PipelineOrder order, int64_t stages, int64_t chunks, const std::string& remat = "none") {
  Engine engine({.mesh = Mesh({{"stage", stages}}), .threads = 1});
  return run(engine, plans_of(engine, step, order, chunks, remat), step);
}

void expect_equal(const Numbers& found, const Numbers& expected) {
  EXPECT_NEAR(found.loss, expected.loss, 1e-6 * expected.loss);
  EXPECT_EQ(found.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) EXPECT(relative_difference(found.gradients.at(name), gradient) < 1e-5);
  EXPECT(found.bubble > 0 && found.bubble < 1);
}

}  // namespace

TEST(pipeline, stages_make_the_numbers_of_one_rank) {
  for (const bool tied : {false, true}) {
    StepOptions step = kStep;
    step.model.tied = tied;
    const Numbers expected = alone(step);
    EXPECT(expected.loss > 0 && !expected.gradients.empty());
    for (const PipelineOrder order : {PipelineOrder::kGpipe, PipelineOrder::k1F1B, PipelineOrder::kZeroBubble}) {
      for (const int64_t stages : {2, 4}) expect_equal(in_stages(step, order, stages, 1), expected);
    }
    expect_equal(in_stages(step, PipelineOrder::kInterleaved, 2, 2), expected);
    for (const char* remat : {"full", "minimal_offloaded"}) {
      expect_equal(in_stages(step, PipelineOrder::kInterleaved, 2, 2, remat), expected);
      expect_equal(in_stages(step, PipelineOrder::kZeroBubble, 2, 1, remat), expected);
    }
  }
}

// A whole step on meshes that stages are part of: loss, norm and every weight after the update.
TEST(pipeline, a_step_on_hybrid_meshes) {
  using Axes = std::vector<std::pair<std::string, int64_t>>;
  for (const bool tied : {false, true}) {
    StepOptions step = kStep;
    step.model.tied = tied;
    step.optimizer = {.kind = "sgd", .momentum = 0.9, .clip = 1.0};  // AdamW's first step amplifies rounding
    const StepNumbers expected = run_step(step, PlanOptions{});
    for (const auto& [axes, order, remat] : {std::tuple(Axes{{"stage", 4}}, PipelineOrder::kZeroBubble, "none"),
                                             std::tuple(Axes{{"stage", 2}, {"fsdp", 2}}, PipelineOrder::k1F1B, "full"),
                                             std::tuple(Axes{{"data", 2}, {"stage", 2}, {"tensor", 2}}, PipelineOrder::kGpipe, "minimal"),
                                             std::tuple(Axes{{"stage", 2}, {"context", 2}}, PipelineOrder::kZeroBubble, "full")}) {
      Engine engine({.mesh = Mesh(axes), .threads = 1});
      const auto loaded = engine.load(plans_of(engine, step, order, 1, remat, true));
      for (const auto& [name, array] : initial_states(step)) {
        if (engine.has_kept(name)) engine.write_kept(name, bytes_of(array).data());
      }
      const Batch batch(step);
      engine.run(*loaded, batch.inputs, batch.scalars);
      EXPECT_NEAR(engine.scalar(*loaded, "loss"), expected.loss, 1e-5 * expected.loss);
      EXPECT_NEAR(engine.scalar(*loaded, "grad_norm"), expected.grad_norm, 1e-5 * expected.grad_norm);
      for (const auto& [name, weight] : expected.weights) {
        HostArray found{weight.type, std::vector<double>(weight.data.size())};
        Bytes bytes(static_cast<size_t>(weight.type.bytes()));
        engine.read_kept(name, bytes.data());
        for (size_t i = 0; i < found.data.size(); ++i)
          found.data[i] = load_element(weight.type.dtype, bytes.data(), static_cast<int64_t>(i));
        EXPECT(relative_difference(found, weight) < 1e-5);
      }
    }
  }
}

// Each microbatch's residual stream goes over every boundary between two runs of layers, and its gradient back.
TEST(pipeline, bytes_that_stages_send) {
  const int64_t stream = kStep.batch * kStep.seq * 16 * 4;
  const auto mailed = [&](PipelineOrder order, int64_t stages, int64_t chunks) { return in_stages(kStep, order, stages, chunks).mailed; };
  EXPECT(mailed(PipelineOrder::k1F1B, 4, 1) == std::vector<int64_t>({stream, 2 * stream, 2 * stream, stream}));
  EXPECT(mailed(PipelineOrder::kZeroBubble, 2, 1) == std::vector<int64_t>({stream, stream}));
  EXPECT(mailed(PipelineOrder::kInterleaved, 2, 2) == std::vector<int64_t>({3 * stream, 3 * stream}));
}

// As many copies as microbatches hold a value at once, whatever else of them is still there.
TEST(pipeline, copies_of_what_is_carried) {
  const auto most = [&](PipelineOrder order, int64_t chunks, int64_t stage, const std::string& between) {
    const Engine engine({.mesh = Mesh({{"stage", 4 / chunks}}), .threads = 1});
    const std::vector<Plan> plans = plans_of(engine, kStep, order, chunks);
    int32_t copies = 0;
    for (const Buffer& buffer : plans[static_cast<size_t>(stage)].carried) {
      if (buffer.name.find(between) != std::string::npos) copies = std::max(copies, buffer.copies);
    }
    return copies;
  };
  for (int64_t stage = 0; stage < 4; ++stage) {
    EXPECT_EQ(int64_t{most(PipelineOrder::kGpipe, 1, stage, "")}, int64_t{4});
    EXPECT_EQ(int64_t{most(PipelineOrder::k1F1B, 1, stage, "")}, 4 - stage);
  }
  // Gradients that the second half of a backward reads: of the microbatches that it is behind, not of all in flight.
  EXPECT_EQ(most(PipelineOrder::kZeroBubble, 1, 0, "layers.0.attention.context"), 4);
  EXPECT_EQ(most(PipelineOrder::kZeroBubble, 1, 1, "gated_activation_gradient"), 2);
  // The second run of layers of a stage is done with a microbatch before the first one is.
  EXPECT(most(PipelineOrder::kInterleaved, 2, 1, "layers.3.") < most(PipelineOrder::kInterleaved, 2, 1, "layers.1."));
}

// As between processes: ranks 0 and 1 are of a stage that has nothing of the array, 2 and 3 have a half each.
TEST(pipeline, ranks_of_other_stages_are_given_what_they_do_not_keep) {
  const Type whole{DType::kF32, {{"embed", 6}}}, half{DType::kF32, {{"embed", 3}}};
  const std::vector<std::optional<Block>> shards{std::nullopt, std::nullopt, Block{half, {0}}, Block{half, {3}}};
  for (const int64_t receiver : {-1, 0, 3}) {
    ThreadWorld world(4);
    world.run([&](Communicator& comm) {
      const auto r = static_cast<size_t>(comm.rank());
      const float first = static_cast<float>(r) * 10;
      const std::vector<float> mine{first, first + 1, first + 2};
      std::vector<float> out(6, -1.0f);
      if (shards[r]) std::copy(mine.begin(), mine.end(), out.begin() + shards[r]->start[0]);
      const auto bytes = [](auto& values) { return reinterpret_cast<std::byte*>(values.data()); };
      collect_block(comm, shards, shards[r] ? reinterpret_cast<const std::byte*>(mine.data()) : nullptr, Block::whole(whole), bytes(out),
                    receiver);
      if (receiver < 0 || receiver == comm.rank()) EXPECT(out == std::vector<float>({20, 21, 22, 30, 31, 32}));
    });
  }
}

TEST(pipeline, stages_that_do_not_fit_each_other) {
  Engine engine({.mesh = Mesh({{"stage", 2}}), .threads = 1});
  const auto plans = [&] { return plans_of(engine, kStep, PipelineOrder::k1F1B, 1); };
  EXPECT_ERROR(InternalError, { engine.load(plans()[0]); }, "1 stages on a mesh that has 2");
  std::vector<Plan> silent = plans();
  for (Piece& piece : silent[0].pieces) piece.sends.clear();
  EXPECT_ERROR(InternalError, { engine.load(std::move(silent)); }, "send 4 letters and expect 8");
  EXPECT_ERROR(UserError, { engine.read_kept("model.norm", nullptr); }, "there is no kept buffer 'model.norm'");
}

}  // namespace mw::testing
