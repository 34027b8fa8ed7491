#include "models/programs.h"

#include <cmath>
#include <set>

#include "config/model_lookup.h"
#include "exec/reference/evaluate.h"
#include "golden.h"
#include "ir/layer_scope.h"
#include "models/initial_weights.h"
#include "models/registry.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw {
namespace {

using Arrays = std::map<std::string, HostArray>;

ModelConfig tiny() { return find_model_config("tiny", "configs/models"); }

// Small enough for the references, with everything the family can have.
ModelConfig small_qwen3() {
  ModelConfig config = tiny();
  config.family = "qwen3";
  config.hf_architecture = config.hf_model_type = "";
  config.qk_norm = QkNorm{.epsilon = config.norm_epsilon};
  config.attention_pattern = {.layer_kinds = {"sliding"}, .sliding_window = 5};
  config.head_dim = 32;
  config.tie_embeddings = true;
  config.rope.scaling = {.kind = "llama3", .factor = 8, .original_max_position_embeddings = 64};
  check_model_config(config);
  return config;
}

Arrays initial_arrays(const ModelConfig& config, double norm_weight = 1.0) {
  Arrays arrays;
  for (const ParameterSpec& parameter : model_parameters(config)) {
    std::vector<float> values(static_cast<size_t>(parameter.type.elements()));
    fill_initial(parameter, parameter.name, 3, 0, values);
    HostArray array{parameter.type, {values.begin(), values.end()}};
    if (parameter.initial == Initial::kOnes) {
      for (double& x : array.data) x = norm_weight;
    }
    arrays.emplace(parameter.name, std::move(array));
  }
  return arrays;
}

template <typename Value>
HostArray filled(const Type& type, Value value) {
  HostArray array{type, std::vector<double>(static_cast<size_t>(type.elements()))};
  for (size_t i = 0; i < array.data.size(); ++i) array.data[i] = value(i);
  return array;
}

void add_batch(Arrays& arrays, int64_t batch, int64_t seq, int64_t vocab) {
  const Type ints{DType::kI32, {{"batch", batch}, {"seq", seq}}};
  arrays.emplace("input_ids", filled(ints, [&](size_t i) { return static_cast<double>((i * 37 + 11) % static_cast<size_t>(vocab)); }));
  arrays.emplace("position_ids", filled(ints, [&](size_t i) { return static_cast<double>(i % static_cast<size_t>(seq)); }));
  arrays.emplace("segment_ids", filled(ints, [](size_t) { return 0.0; }));
}

void expect_round_trip(const Program& program) {
  verify(program, "trace");
  EXPECT_EQ(parse_program(program.to_text(), find_op).to_text(), program.to_text());
}

}  // namespace

TEST(models, tiny_forward_is_the_golden_program) {
  const Program program = trace_forward(tiny(), {.batch = 2, .seq = 8});
  expect_round_trip(program);
  testing::expect_golden("programs/tiny_forward.txt", program.to_text());
}

TEST(models, tiny_loss_and_decode_are_the_golden_programs) {
  const Program loss = trace_loss(small_qwen3(), {.batch = 2, .seq = 8, .dtype = DType::kBF16});
  expect_round_trip(loss);
  testing::expect_golden("programs/tiny_qwen3_loss.txt", loss.to_text());
  const Program decode = trace_decode(tiny(), {.tokens = 3, .slots = 2, .cache_length = 16});
  expect_round_trip(decode);
  testing::expect_golden("programs/tiny_decode.txt", decode.to_text());
}

TEST(models, names_of_rematerialisation_policies_are_scopes_of_every_layer) {
  const Program program = trace_loss(tiny(), {.batch = 1, .seq = 4});
  std::set<std::string> parts[2];
  for (const std::string& scope : program.scopes) {
    if (const auto layer = parse_layer_scope(scope)) parts[layer->layer].insert(std::string(layer->part));
  }
  EXPECT(parts[0] == parts[1]);
  // Each name means something in some family, in the kind of layer that it says.
  std::set<std::string> dense = parts[0], experts;
  for (const char* family : {"gpt3-52k", "deepseek3-671b"}) {
    ModelConfig config = find_model_config(family, "configs/models");
    config.num_layers = std::min<int64_t>(config.num_layers, 5);
    for (const std::string& scope : trace_loss(config, {.batch = 1, .seq = 4}).scopes) {
      if (const auto layer = parse_layer_scope(scope))
        (config.has_experts(layer->layer) ? experts : dense).insert(std::string(layer->part));
    }
  }
  for (const ActivationName& name : kActivationNames) {
    const std::string part(name.part);
    if (!(name.layers != LayerKind::kExperts && dense.contains(part)) && !(name.layers != LayerKind::kDense && experts.contains(part)))
      throw testing::Failure(std::string(name.name) + " means " + part + ", which no family has");
  }
  // The operand of layer 1's first norm is what layer 0 leaves.
  for (const Op& op : program.ops) {
    if (program.scopes[static_cast<size_t>(op.scope)] != "layers.1.input_norm") continue;
    const Op& producer = program.ops[static_cast<size_t>(program.values[static_cast<size_t>(op.operands[0])].producer)];
    EXPECT_EQ(program.scopes[static_cast<size_t>(producer.scope)], "layers.0.output");
  }
}

TEST(models, tiny_loss_at_initialisation_is_near_the_logarithm_of_the_vocabulary) {
  for (const ModelConfig& config : {tiny(), small_qwen3()}) {
    Arrays arrays = initial_arrays(config);
    add_batch(arrays, 2, 8, config.vocab_size);
    const Type ints = arrays.at("input_ids").type;
    arrays.emplace("targets", filled(ints, [](size_t i) { return i % 8 == 7 ? -1.0 : static_cast<double>((i * 53 + 7) % 256); }));
    arrays.emplace("loss_weights", filled(ints.with_dtype(DType::kF32), [](size_t i) { return i % 8 == 7 ? 0.0 : 1.0; }));
    arrays.emplace("loss_scale", filled({DType::kF32, {}}, [](size_t) { return 1.0 / 14; }));
    const double loss = evaluate_reference(trace_loss(config, {.batch = 2, .seq = 8}), arrays, {.check_finite = true}).at("loss").data[0];
    EXPECT_NEAR(loss, std::log(256.0), 0.1);
  }
}

// Two requests fed in three steps of mixed lengths give the logits of the same texts in one forward pass.
TEST(models, decoding_through_caches_equals_forward) {
  for (const ModelConfig& config : {tiny(), small_qwen3()}) {
    const int64_t length = 12;
    Arrays whole = initial_arrays(config, 1.5);
    Arrays arrays = whole;
    add_batch(whole, 2, length, config.vocab_size);
    const HostArray logits = evaluate_reference(trace_forward(config, {.batch = 2, .seq = length}), whole).at("logits");

    const Program step = trace_decode(config, {.tokens = 12, .slots = 2, .cache_length = length});
    Arrays states;
    for (const ProgramInput& input : step.inputs) {
      if (input.kind == InputKind::kState) states.emplace(input.name, filled(step.type(input.value), [](size_t) { return 0.0; }));
    }
    int64_t done[2] = {0, 0};
    for (const auto& [first, second] : {std::pair{7, 4}, {1, 1}, {4, 7}}) {
      const Type row{DType::kI32, {{"batch", 1}, {"seq", 12}}};
      HostArray ids = filled(row, [](size_t) { return 0.0; }), positions = ids, slots = filled(row, [](size_t) { return -1.0; });
      HostArray rows = filled({DType::kI32, {{"slot", 2}}}, [](size_t) { return -1.0; });
      size_t at = 0;
      for (size_t request : {size_t{1}, size_t{0}}) {  // the order in the row does not matter
        for (int i = 0; i < (request == 0 ? first : second); ++i, ++at) {
          ids.data[at] = whole.at("input_ids").data[request * length + static_cast<size_t>(done[request])];
          positions.data[at] = static_cast<double>(done[request]++);
          slots.data[at] = static_cast<double>(request);
        }
        rows.data[request] = static_cast<double>(at - 1);
      }
      Arrays inputs = arrays;
      inputs.insert(states.begin(), states.end());
      inputs.insert({{"input_ids", ids}, {"position_ids", positions}, {"slots", slots}, {"logit_rows", rows}});
      Arrays results = evaluate_reference(step, inputs);
      for (auto& [name, state] : states) state = results.at(name);
      const size_t vocab = static_cast<size_t>(config.vocab_size);
      for (size_t request = 0; request < 2; ++request) {
        for (size_t v = 0; v < vocab; ++v) {
          EXPECT_NEAR(results.at("logits").data[request * vocab + v],
                      logits.data[(request * length + static_cast<size_t>(done[request]) - 1) * vocab + v], 1e-5);
        }
      }
    }
    EXPECT(done[0] == length && done[1] == length);
  }
}

TEST(models, segments_do_not_see_each_other) {
  const ModelConfig config = tiny();
  Arrays packed = initial_arrays(config);
  Arrays alone = packed;
  add_batch(packed, 1, 8, config.vocab_size);
  for (size_t i = 3; i < 8; ++i) {
    packed.at("segment_ids").data[i] = 1;
    packed.at("position_ids").data[i] = static_cast<double>(i - 3);
  }
  add_batch(alone, 1, 5, config.vocab_size);
  for (size_t i = 0; i < 5; ++i) alone.at("input_ids").data[i] = packed.at("input_ids").data[i + 3];
  const HostArray both = evaluate_reference(trace_forward(config, {.batch = 1, .seq = 8}), packed).at("logits");
  const HostArray one = evaluate_reference(trace_forward(config, {.batch = 1, .seq = 5}), alone).at("logits");
  for (size_t i = 0; i < one.data.size(); ++i) EXPECT_NEAR(one.data[i], both.data[3 * 256 + i], 1e-6);
}

}  // namespace mw
