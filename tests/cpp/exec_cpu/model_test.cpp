// A whole model through passes and CPU kernels: loss and every gradient equal those of the references run op by op.
#include <cmath>

#include "config/model_lookup.h"
#include "exec/engine.h"
#include "exec/reference/evaluate.h"
#include "models/initial_weights.h"
#include "models/programs.h"
#include "models/registry.h"
#include "ops/harness.h"
#include "passes/differentiate.h"
#include "passes/pipeline.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kBatch = 2, kSeq = 12;

// Everything the family can have: head norms, a window, tied embeddings, more heads than fit the embedding.
ModelConfig small_qwen3() {
  ModelConfig config = find_model_config("tiny", "configs/models");
  config.family = "qwen3";
  config.hf_architecture = config.hf_model_type = "";
  config.qk_norm = QkNorm{.epsilon = config.norm_epsilon};
  config.attention_pattern = {.layer_kinds = {"sliding"}, .sliding_window = 5};
  config.head_dim = 32;
  config.tie_embeddings = true;
  check_model_config(config);
  return config;
}

struct Stored {
  HostArray array;
  std::vector<std::byte> bytes;

  explicit Stored(HostArray given) : array(std::move(given)), bytes(static_cast<size_t>(array.type.bytes())) {
    round_to_dtype(array);
    for (size_t i = 0; i < array.data.size(); ++i) store_element(array.type.dtype, bytes.data(), static_cast<int64_t>(i), array.data[i]);
  }
};

using Inputs = std::map<std::string, Stored>;

template <typename Value>
void add(Inputs& inputs, const std::string& name, const Type& type, Value value) {
  HostArray array{type, std::vector<double>(static_cast<size_t>(type.elements()))};
  for (size_t i = 0; i < array.data.size(); ++i) array.data[i] = value(i);
  inputs.emplace(name, Stored(std::move(array)));
}

// Two packed sequences per row, some tokens without a target.
Inputs batch_of(const ModelConfig& config) {
  Inputs batch;
  const Type ints{DType::kI32, {{"batch", kBatch}, {"seq", kSeq}}};
  const auto vocab = static_cast<size_t>(config.vocab_size);
  add(batch, "input_ids", ints, [&](size_t i) { return static_cast<double>((i * 37 + 11) % vocab); });
  add(batch, "position_ids", ints, [](size_t i) { return static_cast<double>(i % kSeq < 7 ? i % kSeq : i % kSeq - 7); });
  add(batch, "segment_ids", ints, [](size_t i) { return i % kSeq < 7 ? 1.0 : 2.0; });
  add(batch, "targets", ints, [&](size_t i) { return i % kSeq == 6 ? -1.0 : static_cast<double>((i * 53 + 7) % vocab); });
  add(batch, "loss_weights", ints.with_dtype(DType::kF32),
      [](size_t i) { return i % kSeq == 6 ? 0.0 : 0.5 + 0.1 * static_cast<double>(i % 3); });
  return batch;
}

Inputs weights_of(const ModelConfig& config, DType dtype) {
  Inputs weights;
  for (const ParameterSpec& parameter : model_parameters(config, dtype)) {
    std::vector<float> values(static_cast<size_t>(parameter.type.elements()));
    fill_initial(parameter, parameter.name, 3, 0, values);
    // Larger than at initialisation, so that no gradient is lost in rounding.
    add(weights, parameter.name, parameter.type,
        [&](size_t i) { return parameter.initial == Initial::kOnes ? 1.0 + 0.01 * static_cast<double>(i % 7) : 3.0 * values[i]; });
  }
  return weights;
}

void check_model(const ModelConfig& config, DType dtype, bool fuse, double tolerance) {
  const double loss_scale = 0.05;
  const Inputs weights = weights_of(config, dtype), batch = batch_of(config);
  const Program forward = trace_loss(config, {.batch = kBatch, .seq = kSeq, .dtype = dtype});
  std::map<std::string, HostArray> arrays{{"loss_scale", {{DType::kF32, {}}, {loss_scale}}}};
  for (const Inputs* inputs : {&weights, &batch}) {
    for (const auto& [name, stored] : *inputs) arrays.emplace(name, stored.array);
  }
  const auto expected = evaluate_reference(differentiate(forward), arrays, {.round_results = false});

  Engine engine({.mesh = {}, .threads = 2});
  PlanOptions options;
  options.fuse = fuse;
  options.backend = {
      .workspace_bytes = [&](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, engine.environment()); },
      .has_kernel = cpu::has_kernel};
  const auto loaded = engine.load(plan_gradients(forward, {}, options));
  for (const auto& [name, stored] : weights) engine.write_kept(name, stored.bytes.data());
  std::map<std::string, WholeArray> inputs;
  for (const auto& [name, stored] : batch) inputs.emplace(name, WholeArray{stored.array.type, stored.bytes.data()});
  engine.run(*loaded, inputs, {{"loss_scale", loss_scale}});
  for (const auto& [name, array] : expected) {
    HostArray found{engine.result_type(*loaded, name), std::vector<double>(array.data.size())};
    for (size_t i = 0; i < found.data.size(); ++i)
      found.data[i] = load_element(found.type.dtype, engine.result(*loaded, name), static_cast<int64_t>(i));
    const double difference = relative_difference(found, array);
    if (!(difference <= tolerance))
      throw Failure(config.family + " in " + std::string(dtype_name(dtype)) + ": " + name + " differs by " + show(difference));
  }
  EXPECT_EQ(expected.size(), weights.size() + 1);
}

}  // namespace

TEST(exec_cpu, a_models_loss_and_gradients_equal_the_references) {
  for (const ModelConfig& config : {find_model_config("tiny", "configs/models"), small_qwen3()}) {
    for (const bool fuse : {true, false}) check_model(config, DType::kF32, fuse, 2e-5);
    check_model(config, DType::kBF16, true, 5e-2);
  }
}

}  // namespace mw::testing
