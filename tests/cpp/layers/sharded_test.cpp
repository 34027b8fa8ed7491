// Attention layers on a mesh: loss and gradients, and the outputs of a decoding step, are those of one rank.
#include "layers/mla.h"
#include "ops/harness.h"
#include "ops/ops.h"
#include "passes/pipeline.h"
#include "passes/spmd_evaluator.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kBatch = 4, kSeq = 4, kEmbed = 8;
using Build = Tensor (*)(Tensor x, const Tokens& tokens);

Tensor weight(Builder& b, const char* name, std::vector<Dim> dims) { return b.parameter(name, {DType::kF32, std::move(dims)}); }

Tensor with_sinks(Tensor x, const Tokens& tokens) {
  Builder& b = *x.builder;
  const Dim heads{"kv_heads", 2}, queries{"q_per_kv", 2}, head{"head_dim", 4}, e{"embed", kEmbed};
  const AttentionWeights w{.query = weight(b, "query", {heads, queries, head, e}),
                           .key = weight(b, "key", {heads, head, e}),
                           .value = weight(b, "value", {heads, head, e}),
                           .out = weight(b, "out", {e, heads, queries, head}),
                           .sinks = weight(b, "sinks", {heads, queries})};
  return self_attention(x, w, {.scale = 0.5, .chunk = 3, .softcap = 2, .rope = RopeAttributes{}}, tokens);
}

Tensor latent(Tensor x, const Tokens& tokens) {
  Builder& b = *x.builder;
  const Dim heads{"kv_heads", 4}, e{"embed", kEmbed};
  const MlaWeights w{.query = weight(b, "query", {heads, {"head_dim", 6}, e}),
                     .kv_a = weight(b, "kv_a", {{"kv_lora_rope", 6}, e}),
                     .kv_a_norm = weight(b, "kv_a_norm", {{"kv_lora", 4}}),
                     .kv_b = weight(b, "kv_b", {heads, {"nope_value", 7}, {"kv_lora", 4}}),
                     .out = weight(b, "out", {e, heads, {"value_dim", 3}})};
  return latent_attention(x, w, {.scale = 0.4}, tokens);
}

Program training(Build build) {
  Builder b("loss");
  const Type ints{DType::kI32, {{"batch", kBatch}, {"seq", kSeq}}};
  const Tensor x = b.input("x", {DType::kF32, {{"batch", kBatch}, {"seq", kSeq}, {"embed", kEmbed}}});
  const Tensor y = build(x, Tokens::in_sequence(b.input("positions", ints), b.input("segments", ints)));
  b.output("loss", reduce_sum(square(y), {"batch", "seq", "embed"}));
  return b.take();
}

Program decoding(Build build) {
  Builder b("decode");
  const Type ints{DType::kI32, {{"batch", 1}, {"seq", kSeq}}};
  const Tensor x = b.input("x", {DType::kF32, {{"batch", 1}, {"seq", kSeq}, {"embed", kEmbed}}});
  const Tensor slots = b.input("slots", ints), positions = b.input("positions", ints);
  b.output("y", build(x, Tokens::through_caches(positions, {.slots = slots, .num_slots = 2, .length = 8, .step_tokens = kSeq})));
  return b.take();
}

HostArray numbers(const Type& type, const std::string& name) {
  if (!is_float(type.dtype)) {
    HostArray array{type, {}};
    for (int64_t i = 0; i < type.elements(); ++i) array.data.push_back(static_cast<double>(name == "positions" ? i % kSeq : 1));
    return array;
  }
  return make_operands({.name = name, .operands = {normal(to_string(type), 0.7)}}, std::hash<std::string>()(name))[0];
}

std::map<std::string, HostArray> run(const Program& traced, const Plan& plan, const Mesh& mesh) {
  SpmdEvaluator ranks(plan, mesh);
  std::map<std::string, HostArray> inputs, results;
  for (const ProgramInput& input : traced.inputs) {
    const HostArray array = numbers(traced.type(input.value), input.name);
    if (input.kind == InputKind::kInput) {
      inputs.emplace(input.name, array);
    } else {
      ranks.write(input.name, array);
    }
  }
  ranks.run(inputs);
  for (const Buffer& buffer : plan.results) results.emplace(buffer.name, ranks.result(buffer.name));
  return results;
}

void expect_equal_results(const std::map<std::string, HostArray>& results, const std::map<std::string, HostArray>& expected,
                          const Mesh& mesh) {
  EXPECT_EQ(results.size(), expected.size());
  for (const auto& [name, array] : expected) {
    const double difference = relative_difference(results.at(name), array);
    if (!(difference < 1e-9)) throw Failure(mesh.to_string() + ": " + name + " differs by " + show(difference));
  }
}

const std::vector<Mesh> kMeshes{Mesh({{"data", 2}}), Mesh({{"tensor", 2}}), Mesh({{"data", 2}, {"tensor", 4}}),
                                Mesh({{"fsdp", 2}, {"tensor", 2}})};

}  // namespace

TEST(layers, gradients_of_attention_do_not_depend_on_the_mesh) {
  for (const Build build : {with_sinks, latent}) {
    const Program program = training(build);
    std::map<std::string, HostArray> expected = run(program, plan_gradients(program, {}, {}), Mesh());
    for (const Mesh& mesh : kMeshes) {
      PlanOptions options;
      options.mesh = mesh;
      expect_equal_results(run(program, plan_gradients(program, {}, options), mesh), expected, mesh);
    }
  }
}

TEST(layers, decoding_by_heads_does_not_depend_on_the_mesh) {
  for (const Build build : {with_sinks, latent}) {
    const Program program = decoding(build);
    const std::map<std::string, HostArray> expected = run(program, plan_single(program, "decode", {}), Mesh());
    for (const int64_t ranks : {2, 4}) {
      PlanOptions options;
      options.mesh = Mesh({{"tensor", ranks}});
      std::erase_if(options.rules.compute, [](const RuleRow& row) { return row.dim == "batch" || row.dim == "seq"; });
      expect_equal_results(run(program, plan_single(program, "decode", options), options.mesh), expected, options.mesh);
    }
  }
}

}  // namespace mw::testing
