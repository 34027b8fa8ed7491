#include "models/flops.h"

#include <nlohmann/json.hpp>

#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "runner.h"

namespace mw {
namespace {

const std::string kFolder = "configs/models";

ModelConfig find(const std::string& name, const nlohmann::json& overrides = nlohmann::json::object()) {
  ModelConfig config = find_model_config(name, kFolder);
  override_model_config(config, overrides);
  return config;
}

}  // namespace

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

// Worked out by hand from the table in docs/flops.md; forward, one sequence.
TEST(models, flops_of_windows_chunks_and_experts) {
  // Gemma 2 2B, 2 layers (sliding 4096, global), 8192 tokens: d 2304, 8 / 4 heads of 256, mlp 9216, vocabulary 256000.
  const double s = 8192, gemma_layer = 2 * s * 2304 * (8 + 8) * 256 + 2 * s * 2304 * 8 * 256 + 6 * s * 2304 * 9216;
  const double sliding = 4 * (s * 4096 - 0.5 * 4096 * 4096) * 8 * 256, global = 2 * s * s * 8 * 256;
  EXPECT_NEAR(forward_flops(find("gemma2-2b", {{"num_layers", 2}}), 1, s) / (2 * gemma_layer + sliding + global + 2 * s * 2304 * 256000.0),
              1, 1e-12);
  // A window longer than the sequence is none: 1024 tokens.
  EXPECT_NEAR(forward_flops(find("gemma2-2b", {{"num_layers", 2}}), 1, 1024) /
                  (2 * gemma_layer / 8 + 2 * 2 * 1024.0 * 1024 * 8 * 256 + 2 * 1024 * 2304 * 256000.0),
              1, 1e-12);
  // Llama 4 Maverick, 4 layers (dense, experts, dense, experts; the last without chunks), 20000 tokens = 2 chunks of 8192 and 3616.
  const double t = 20000, d = 5120, qkv = 2 * t * d * (40 + 16) * 128 + 2 * t * d * 40 * 128;
  const double chunked = 2 * (2 * 8192.0 * 8192 + 3616.0 * 3616) * 40 * 128, whole = 2 * t * t * 40 * 128;
  const double dense = 6 * t * d * 16384, experts = 2 * t * d * 128 + 6 * t * d * 8192 * (1 + 1);
  EXPECT_NEAR(forward_flops(find("llama4-17b-128e", {{"num_layers", 4}}), 1, t) /
                  (4 * qkv + 3 * chunked + whole + 2 * dense + 2 * experts + 2 * t * d * 202048),
              1, 1e-12);
  // Mixtral 8x7B, 1 layer, 100 tokens: 2 of 8 experts.
  const double mixtral = 2 * 100 * 4096.0 * (32 + 16) * 128 + 2 * 100 * 4096.0 * 4096 + 2 * 100 * 100 * 4096.0 + 2 * 100 * 4096.0 * 8 +
                         2 * 6 * 100 * 4096.0 * 14336;
  EXPECT_NEAR(forward_flops(find("mixtral-8x7b", {{"num_layers", 1}}), 1, 100) / (mixtral + 2 * 100 * 4096.0 * 32000), 1, 1e-12);
  // GPT-3: no gate; positions are looked up.
  const double gpt = 8 * 64 * 16.0 * 16 + 2 * 64 * 64 * 16.0 + 4 * 64 * 16.0 * 64 + 2 * 64 * 16.0 * 1024;
  EXPECT_NEAR(forward_flops(find("gpt3-52k"), 1, 64) / gpt, 1, 1e-12);
}

TEST(models, flops_of_latent_attention_and_multi_token_prediction) {
  // DeepSeek V3, 4 layers (3 dense, 1 with experts), 1000 tokens, and one prediction module.
  const double t = 1000, d = 7168, H = 128;
  const double query = 2 * t * (d * 1536 + 1536 * H * 192), keys = 2 * t * (d * 576 + 512 * H * 256), out = 2 * t * d * H * 128;
  const double attention = t * t * H * (192 + 128), dense = 6 * t * d * 18432, experts = 2 * t * d * 256 + 6 * t * d * 2048 * (8 + 1);
  const double expected = 5 * (query + keys + out + attention) + 3 * dense + 2 * experts + 2 * t * d * 129280;
  EXPECT_NEAR(forward_flops(find("deepseek3-671b", {{"num_layers", 4}}), 1, t) / expected, 1, 1e-12);
  // V2-Lite projects queries directly.
  const double lite = 2 * t * 2048 * 16 * 192 + 2 * t * (2048 * 576 + 512 * 16 * 256) + 2 * t * 2048 * 16 * 128 + t * t * 16 * 320 +
                      6 * t * 2048 * 10944 + 2 * t * 2048 * 102400;
  EXPECT_NEAR(forward_flops(find("deepseek2-16b", {{"num_layers", 1}}), 1, t) / lite, 1, 1e-12);
}

TEST(models, cache_bytes) {
  EXPECT_EQ(kv_cache_bytes_per_token(find("llama3-8b"), DType::kBF16), 131072);
  EXPECT_EQ(kv_cache_bytes_per_token(find("deepseek3-671b"), DType::kBF16), 61 * (512 + 64) * 2);
  EXPECT_EQ(kv_cache_bytes(find("llama3-8b"), DType::kBF16, 1000), 131072000);
  EXPECT_EQ(kv_cache_bytes(find("deepseek2-16b"), DType::kF32, 10), 27 * 576 * 4 * 10);
  EXPECT_EQ(kv_cache_bytes(find("gpt-oss-20b"), DType::kBF16, 1000), int64_t{12 * (128 + 1000)} * 2 * 8 * 64 * 2);
  EXPECT_EQ(kv_cache_bytes(find("gemma3-4b"), DType::kBF16, 4096), int64_t{29 * 1024 + 5 * 4096} * 2 * 4 * 256 * 2);
  EXPECT_EQ(kv_cache_bytes(find("llama4-17b-16e"), DType::kBF16, 10000), int64_t{36 * 8192 + 12 * 10000} * 2 * 8 * 128 * 2);
  EXPECT_EQ(kv_cache_bytes(find("mistral-7b-v0.1"), DType::kBF16, 10000), int64_t{32} * 4096 * 2 * 8 * 128 * 2);
}

}  // namespace mw
