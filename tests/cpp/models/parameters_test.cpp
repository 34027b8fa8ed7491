#include "models/parameters.h"

#include <cmath>

#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "models/flops.h"
#include "models/initial_weights.h"
#include "models/registry.h"
#include "runner.h"

namespace mw {
namespace {

const std::string kFolder = "configs/models";

const ParameterSpec& find(const std::vector<ParameterSpec>& parameters, const std::string& name) {
  for (const ParameterSpec& parameter : parameters) {
    if (parameter.name == name) return parameter;
  }
  testing::fail(__FILE__, __LINE__, "no parameter " + name);
}

}  // namespace

// Counted by transformers' classes at full size.
TEST(models, parameter_counts) {
  const std::vector<std::pair<std::string, int64_t>> expected{
      {"llama2-7b", 6738415616},
      {"llama2-13b", 13015864320},
      {"llama2-70b", 68976648192},
      {"llama3-8b", 8030261248},
      {"llama3-70b", 70553706496},
      {"llama3-405b", 405853388800},
      {"llama3.1-8b", 8030261248},
      {"llama3.1-70b", 70553706496},
      {"llama3.1-405b", 405853388800},
      {"llama3.3-70b", 70553706496},
      {"mistral-7b", 7241732096},
      {"mistral-7b-v0.1", 7241732096},
      {"mistral-7b-v0.3", 7248023552},
      {"qwen3-0.6b", 596049920},
      {"qwen3-1.7b", 1720574976},
      {"qwen3-4b", 4022468096},
      {"qwen3-8b", 8190735360},
      {"qwen3-14b", 14768307200},
      {"qwen3-32b", 32762123264},
      {"tiny", 131392},
      {"mini", 5770496},
      {"small", 23910048},
      {"base", 124668672},
  };
  for (const auto& [name, count] : expected) {
    const ModelConfig config = find_model_config(name, kFolder);
    EXPECT_EQ(config.name, name);
    EXPECT_EQ(num_elements(model_parameters(config)), count);
  }
  EXPECT_EQ(model_names(kFolder).size(), expected.size());
}

TEST(models, parameters_have_the_shapes_of_their_files) {
  const ModelConfig config = find_model_config("qwen3-0.6b", kFolder);
  const std::vector<ParameterSpec> parameters = model_parameters(config, DType::kBF16);
  const ParameterSpec& query = find(parameters, "model.layers.27.self_attn.q_proj.weight");
  EXPECT_EQ(to_string(query.type), "bf16[kv_heads=8, q_per_kv=2, head_dim=128, embed=1024]");
  EXPECT(query.hf_shape == (std::vector<int64_t>{2048, 1024}));
  EXPECT_EQ(to_string(find(parameters, "model.layers.0.self_attn.k_proj.weight").type), "bf16[kv_heads=8, head_dim=128, embed=1024]");
  EXPECT_EQ(to_string(find(parameters, "model.layers.0.self_attn.o_proj.weight").type),
            "bf16[embed=1024, kv_heads=8, q_per_kv=2, head_dim=128]");
  EXPECT_EQ(to_string(find(parameters, "model.layers.0.self_attn.q_norm.weight").type), "bf16[head_dim=128]");
  EXPECT_EQ(to_string(find(parameters, "model.layers.0.mlp.down_proj.weight").type), "bf16[embed=1024, mlp=3072]");
  // Tied: one embedding, which weight decay leaves alone, and no head.
  EXPECT(!find(parameters, "model.embed_tokens.weight").decays());
  EXPECT_EQ(parameters.back().name, "model.norm.weight");
  EXPECT(query.decays() && !parameters.back().decays());
  EXPECT(find(model_parameters(find_model_config("tiny", kFolder)), "lm_head.weight").decays());
}

TEST(models, biases_are_parameters_where_the_configuration_has_them) {
  ModelConfig config = find_model_config("tiny", kFolder);
  config.bias = {.qkv = true, .attention_output = true, .mlp = true};
  check_model_config(config);
  const std::vector<ParameterSpec> parameters = model_parameters(config);
  const ParameterSpec& bias = find(parameters, "model.layers.1.self_attn.q_proj.bias");
  EXPECT_EQ(to_string(bias.type), "f32[kv_heads=2, q_per_kv=2, head_dim=16]");
  EXPECT(bias.hf_shape == std::vector<int64_t>{64} && !bias.decays() && bias.initial == Initial::kZeros);
  EXPECT_EQ(num_elements(parameters), 131392 + 2 * (64 + 32 + 32 + 64 + 192 + 192 + 64));
}

TEST(models, flops_as_written_in_docs_flops) {
  const ModelConfig config = find_model_config("llama2-7b", kFolder);
  // One sequence of 4096 tokens: 3 * (32 layers * (projections + attention + mlp) + head).
  const double s = 4096, d = 4096;
  const double layer = 8 * s * d * d + 2 * s * s * d + 6 * s * d * 11008;
  EXPECT_NEAR(training_flops(config, 1, s) / (3 * (32 * layer + 2 * s * d * 32000)), 1.0, 1e-12);
  EXPECT_NEAR(training_flops_per_token(config, s) * s * 4 / training_flops(config, 4, s), 1.0, 1e-12);
  // A window is not counted.
  EXPECT_EQ(training_flops(find_model_config("mistral-7b-v0.1", kFolder), 1, 8192),
            training_flops(find_model_config("mistral-7b", kFolder), 1, 8192));
  EXPECT_EQ(kv_cache_bytes_per_token(find_model_config("llama3-8b", kFolder), DType::kBF16), 131072);
}

TEST(models, initial_weights_depend_on_seed_name_and_index_alone) {
  const ModelConfig config = find_model_config("tiny", kFolder);
  const std::vector<ParameterSpec> parameters = model_parameters(config);
  const ParameterSpec& out = find(parameters, "model.layers.0.self_attn.o_proj.weight");  // [embed=64, kv_heads=2, q_per_kv=2, head_dim=16]
  std::vector<float> whole(static_cast<size_t>(out.type.elements()));
  fill_initial(out, out.name, 7, 0, whole);
  double square = 0;
  for (const float x : whole) square += static_cast<double>(x) * x;
  EXPECT_NEAR(std::sqrt(square / static_cast<double>(whole.size())), 0.02 / std::sqrt(4.0), 0.0005);

  std::vector<float> part(100);
  fill_initial(out, out.name, 7, 33, part);
  for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], whole[33 + i]);

  std::vector<float> other(whole.size());
  fill_initial(out, out.name, 8, 0, other);
  EXPECT(other != whole);
  fill_initial(find(parameters, "model.norm.weight"), "model.norm.weight", 7, 0, {other.data(), 64});
  EXPECT_EQ(other[63], 1.0f);
}

}  // namespace mw
