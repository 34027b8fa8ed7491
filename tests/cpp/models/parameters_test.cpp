#include "models/parameters.h"

#include <cmath>

#include "config/model_config_json.h"
#include "config/model_lookup.h"
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

TEST(models, every_family_has_the_dims_of_its_files) {
  const auto spec = [](const std::string& model, const std::string& name) {
    return find(model_parameters(find_model_config(model, kFolder), DType::kBF16), name);
  };
  const auto check = [&](const std::string& model, const std::string& name, const std::string& type, const std::vector<int64_t>& shape) {
    EXPECT_EQ(to_string(spec(model, name).type), type);
    EXPECT(spec(model, name).hf_shape == shape);
  };
  check("mixtral-8x7b", "model.layers.31.block_sparse_moe.experts.w2.weight", "bf16[experts=8, embed=4096, expert_mlp=14336]",
        {4096, 14336});
  EXPECT_EQ(spec("mixtral-8x7b", "model.layers.0.block_sparse_moe.experts.w3.weight").tensor_name(7),
            "model.layers.0.block_sparse_moe.experts.7.w3.weight");
  check("qwen3-30b-a3b", "model.layers.3.mlp.experts.gate_proj.weight", "bf16[experts=128, expert_mlp=768, embed=2048]", {768, 2048});
  check("gemma3-4b", "language_model.model.layers.0.self_attn.k_norm.weight", "bf16[head_dim=256]", {256});
  EXPECT(spec("gemma2-2b", "model.layers.0.post_feedforward_layernorm.weight").initial == Initial::kZeros);
  check("deepseek2-16b", "model.layers.0.self_attn.q_proj.weight", "bf16[kv_heads=16, head_dim=192, embed=2048]", {3072, 2048});
  check("deepseek3-671b", "model.layers.60.self_attn.kv_a_proj_with_mqa.weight", "bf16[kv_lora_rope=576, embed=7168]", {576, 7168});
  check("deepseek3-671b", "model.layers.60.self_attn.kv_b_proj.weight", "bf16[kv_heads=128, nope_value=256, kv_lora=512]", {32768, 512});
  check("deepseek3-671b", "model.layers.61.self_attn.o_proj.weight", "bf16[embed=7168, kv_heads=128, value_dim=128]", {7168, 16384});
  check("deepseek3-671b", "model.layers.61.eh_proj.weight", "bf16[embed=7168, mtp_in=14336]", {7168, 14336});
  const ParameterSpec bias = spec("deepseek3-671b", "model.layers.61.mlp.gate.e_score_correction_bias");
  EXPECT(bias.type.dtype == DType::kF32 && !bias.trained && !bias.decays());
  const ParameterSpec table = spec("deepseek3-671b", "model.embed_tokens.weight");
  EXPECT(table.copies.size() == 1 && table.copies[0].written && table.copies[0].name == "model.layers.61.embed_tokens.weight");
  EXPECT_EQ(spec("deepseek3-671b", "lm_head.weight").copies.at(0).name, "model.layers.61.shared_head.head.weight");
  check("gpt-oss-20b", "model.layers.0.mlp.experts.gate_up_proj", "bf16[experts=32, embed=2880, expert_mlp=2880, gate_up=2]",
        {32, 2880, 5760});
  check("gpt-oss-20b", "model.layers.0.self_attn.sinks", "bf16[kv_heads=8, q_per_kv=8]", {64});
  EXPECT(!spec("gpt-oss-20b", "model.layers.0.mlp.experts.down_proj_bias").decays());
  check("llama4-17b-16e", "language_model.model.layers.0.feed_forward.experts.gate_up_proj",
        "bf16[experts=16, embed=5120, gate_up=2, expert_mlp=8192]", {16, 5120, 16384});
  check("llama4-17b-128e", "language_model.model.layers.0.feed_forward.gate_proj.weight", "bf16[mlp=16384, embed=5120]", {16384, 5120});
  check("gpt3-6b", "transformer.h.0.attn.c_attn.weight", "bf16[embed=3072, qkv=3, kv_heads=12, head_dim=256]", {3072, 9216});
  check("gpt3-6b", "transformer.wpe.weight", "bf16[positions=16384, embed=3072]", {16384, 3072});
  EXPECT(!spec("gpt3-6b", "transformer.wpe.weight").decays());
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
