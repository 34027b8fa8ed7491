#include "passes/training.h"

#include <cmath>
#include <random>

#include "models/programs.h"
#include "models/registry.h"
#include "ops/harness.h"
#include "runner.h"

namespace mw::testing {
namespace {

std::vector<TrainedParameter> trained_parameters(const StepOptions& step) {
  std::vector<TrainedParameter> list;
  for (const ParameterSpec& p : model_parameters(tiny_llama(step.model), step.dtype)) list.push_back({p.name, p.type, p.decays()});
  return list;
}

HostArray integers(const Type& type, const std::function<int64_t(int64_t row, int64_t at)>& value) {
  HostArray array{type, {}};
  for (int64_t row = 0; row < type.dims[0].size; ++row) {
    for (int64_t at = 0; at < type.dims[1].size; ++at) array.data.push_back(static_cast<double>(value(row, at)));
  }
  return array;
}

void expect_near(const std::string& what, const HostArray& a, const HostArray& b, double tolerance) {
  const double difference = relative_difference(a, b);
  if (!(difference <= tolerance)) throw Failure(what + " differs by " + show(difference) + " of its largest element");
}

}  // namespace

HostArray random_array(const Type& type, uint64_t seed, double scale, double mean) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(mean, scale);
  HostArray array{type, {}};
  for (int64_t i = 0; i < type.elements(); ++i) array.data.push_back(normal(engine));
  return array;
}

HostArray scalar(double value) { return {{DType::kF32, {}}, {value}}; }

ModelConfig tiny_llama(const TinyOptions& options) {
  ModelConfig config;
  config.name = "tiny";
  config.embedding_dim = 16;
  config.mlp_dim = 24;
  config.num_layers = options.num_layers;
  config.num_query_heads = 8;
  config.num_kv_heads = 2;
  config.head_dim = 4;
  config.vocab_size = 32;
  if (options.window > 0) config.attention_pattern = {.layer_kinds = {"sliding"}, .sliding_window = options.window};
  config.tie_embeddings = options.tied;
  if (options.qk_norm) config.qk_norm = QkNorm{};
  config.bias = {options.biases, options.biases, options.biases};
  config.hf_architecture = "LlamaForCausalLM";
  config.hf_model_type = "llama";
  return config;
}

std::map<std::string, HostArray> initial_states(const StepOptions& step) {
  std::map<std::string, HostArray> states;
  uint64_t seed = 7;
  for (const ParameterSpec& p : model_parameters(tiny_llama(step.model), step.dtype)) {
    const bool vector = p.hf_shape.size() < 2;
    HostArray master = random_array(p.type.with_dtype(DType::kF32), ++seed, vector ? 0.2 : 0.3, p.initial == Initial::kOnes ? 1.0 : 0.0);
    HostArray stored{p.type, master.data};
    round_to_dtype(stored);
    if (step.dtype != DType::kF32) states[kMasterPrefix + p.name] = {master.type, stored.data};
    states[p.name] = std::move(stored);
    for (const std::string& prefix : optimizer_state_prefixes(step.optimizer)) {
      states[prefix + p.name] = {master.type, std::vector<double>(master.data.size(), 0.0)};
    }
  }
  return states;
}

std::map<std::string, HostArray> batch_inputs(const StepOptions& step) {
  const Type ids{DType::kI32, {{"batch", step.batch}, {"seq", step.seq}}};
  const int64_t half = step.seq / 2;
  std::map<std::string, HostArray> inputs;
  inputs["input_ids"] = integers(ids, [](int64_t row, int64_t at) { return (row * 13 + at * 7 + row * at) % 32; });
  inputs["position_ids"] = integers(ids, [&](int64_t row, int64_t at) { return row % 2 ? at % half : at; });
  inputs["segment_ids"] = integers(ids, [&](int64_t row, int64_t at) { return row % 2 ? at / half : 0; });
  inputs["targets"] = integers(ids, [](int64_t row, int64_t at) { return (row + at) % 5 == 0 ? -1 : (row * 5 + at * 11) % 32; });
  HostArray weights = integers(ids.with_dtype(DType::kF32), [](int64_t row, int64_t at) { return 1 + (row + at) % 3; });
  double total = 0;
  for (size_t i = 0; i < weights.data.size(); ++i) total += inputs["targets"].data[i] < 0 ? 0 : weights.data[i];
  inputs["loss_weights"] = std::move(weights);
  inputs["loss_scale"] = scalar(1.0 / total);
  inputs["lr"] = scalar(0.01);
  inputs["correction1"] = scalar(0.1);
  inputs["correction2"] = scalar(0.001);
  return inputs;
}

Plan plan_step(const StepOptions& step, const PlanOptions& options) {
  PlanOptions own = options;
  own.microbatches = step.microbatches;
  Program forward = trace_loss(tiny_llama(step.model), {.batch = step.batch / step.microbatches, .seq = step.seq, .dtype = step.dtype});
  return plan_training(std::move(forward), trace_update(step.optimizer, trained_parameters(step)), {}, own);
}

StepNumbers run_step(const StepOptions& step, const Plan& plan, const Mesh& mesh, ReferenceOptions reference) {
  SpmdEvaluator ranks(plan, mesh, reference);
  for (const auto& [name, array] : initial_states(step)) ranks.write(name, array);
  ranks.run(batch_inputs(step));
  StepNumbers numbers{.loss = ranks.result("loss").data[0],
                      .grad_norm = ranks.result("grad_norm").data[0],
                      .gradients = {},
                      .weights = {},
                      .traffic = ranks.traffic()};
  for (const TrainedParameter& p : trained_parameters(step)) {
    numbers.gradients[p.name] = ranks.read("gradient." + p.name);
    numbers.weights[p.name] = ranks.read(p.name);
  }
  return numbers;
}

StepNumbers run_step(const StepOptions& step, const PlanOptions& options, ReferenceOptions reference) {
  return run_step(step, plan_step(step, options), options.mesh, reference);
}

void expect_equal_numbers(const StepNumbers& numbers, const StepNumbers& expected, double tolerance) {
  EXPECT_NEAR(numbers.loss, expected.loss, tolerance * std::abs(expected.loss));
  for (const auto& [name, gradient] : expected.gradients) expect_near("gradient." + name, numbers.gradients.at(name), gradient, tolerance);
  EXPECT_NEAR(numbers.grad_norm, expected.grad_norm, tolerance * expected.grad_norm);
  for (const auto& [name, weight] : expected.weights) expect_near(name, numbers.weights.at(name), weight, tolerance);
}

}  // namespace mw::testing
