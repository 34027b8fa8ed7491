#include "config/huggingface_config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "runner.h"

namespace mw {
namespace {

using nlohmann::json;

// As the hub has it: the spelling of transformers 4.
const json kLlama31 = json::parse(R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
  "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
  "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256})");

// As transformers 5 writes it.
const json kQwen3 = json::parse(R"({
  "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
  "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
  "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
  "num_attention_heads": 16, "num_hidden_layers": 2, "num_key_value_heads": 8, "pad_token_id": null, "rms_norm_eps": 1e-06,
  "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "sliding_window": null, "tie_word_embeddings": true,
  "transformers_version": "5.23.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})");

ModelConfig read(const json& base, const json& changes = json::object()) {
  json object = base;
  object.merge_patch(changes);  // null removes a key
  return model_config_from_json(object, "folder/config.json");
}

ModelConfig published(const std::string& name) {
  ModelConfig config = find_model_config(name, "configs/models");
  config.name = "folder";
  config.hf_repo = "";
  config.dtype = DType::kBF16;
  return config;
}

template <typename... Parts>
void expect_refused(const json& base, const json& changes, const Parts&... parts) {
  EXPECT_ERROR(UserError, { read(base, changes); }, parts...);
}

}  // namespace

TEST(config, huggingface_old_and_new_spelling_mean_our_models) {
  EXPECT(read(kLlama31) == published("llama3.1-8b"));
  ModelConfig qwen = published("qwen3-0.6b");
  qwen.num_layers = 2;
  EXPECT(read(kQwen3) == qwen);
  // The same models in the other spelling.
  EXPECT(read(kLlama31, {{"rope_scaling", nullptr},
                         {"rope_theta", nullptr},
                         {"torch_dtype", nullptr},
                         {"dtype", "bfloat16"},
                         {"rope_parameters",
                          {{"rope_theta", 5e5},
                           {"rope_type", "llama3"},
                           {"factor", 8.0},
                           {"low_freq_factor", 1.0},
                           {"high_freq_factor", 4.0},
                           {"original_max_position_embeddings", 8192}}}}) == published("llama3.1-8b"));
  EXPECT(read(kQwen3, {{"rope_parameters", nullptr},
                       {"rope_theta", 1000000},
                       {"layer_types", nullptr},
                       {"dtype", nullptr},
                       {"torch_dtype", "bfloat16"}}) == qwen);
}

TEST(config, huggingface_defaults_are_those_of_the_class) {
  const ModelConfig llama = read(kLlama31, {{"num_key_value_heads", nullptr},
                                            {"rms_norm_eps", nullptr},
                                            {"rope_theta", nullptr},
                                            {"rope_scaling", nullptr},
                                            {"max_position_embeddings", nullptr}});
  EXPECT_EQ(llama.num_kv_heads, 32);
  EXPECT_EQ(llama.head_dim, 128);
  EXPECT_EQ(llama.norm_epsilon, 1e-6);
  EXPECT_EQ(llama.rope.theta, 1e4);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  const json mistral{{"architectures", {"MistralForCausalLM"}},
                     {"model_type", "mistral"},
                     {"hidden_size", 64},
                     {"intermediate_size", 128},
                     {"num_hidden_layers", 1},
                     {"num_attention_heads", 16},
                     {"vocab_size", 100},
                     {"head_dim", nullptr}};
  const ModelConfig config = model_config_from_json(mistral, "config.json");
  EXPECT_EQ(config.attention_pattern.sliding_window, 4096);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 4);
  json without_window = mistral;
  without_window["sliding_window"] = nullptr;
  EXPECT_EQ(model_config_from_json(without_window, "config.json").attention_pattern.sliding_window, 0);
  // Old spelling of a rope type, several ends, no class name.
  const ModelConfig old =
      read(kLlama31, {{"architectures", nullptr}, {"rope_scaling", nullptr}, {"eos_token_id", {1, 2}}, {"pad_token_id", -1}});
  EXPECT(old.eos_token_ids == (std::vector<int64_t>{1, 2}) && !old.pad_token_id);
  json linear = kLlama31;
  linear["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(read(linear).rope.scaling.kind, "linear");
  EXPECT(read(kLlama31, {{"attention_bias", true}, {"mlp_bias", true}}).bias == (BiasConfig{true, true, true}));
}

TEST(config, huggingface_windows) {
  EXPECT_EQ(read(kQwen3, {{"sliding_window", 16}}).attention_pattern.sliding_window, 0);  // layer_types says full
  EXPECT_EQ(
      read(kQwen3, {{"sliding_window", 16}, {"layer_types", {"sliding_attention", "sliding_attention"}}}).attention_pattern.sliding_window,
      16);
  EXPECT_EQ(read(kQwen3, {{"sliding_window", 16}, {"layer_types", nullptr}, {"use_sliding_window", true}, {"max_window_layers", 0}})
                .attention_pattern.sliding_window,
            16);
  EXPECT_EQ(read(kQwen3, {{"sliding_window", 16}, {"layer_types", nullptr}, {"use_sliding_window", true}}).attention_pattern.sliding_window,
            0);  // 28 full layers first
  const std::vector<std::string> mixed{"global", "sliding"};
  EXPECT(read(kQwen3, {{"sliding_window", 16}, {"layer_types", {"full_attention", "sliding_attention"}}}).attention_pattern.layer_kinds ==
         mixed);
  EXPECT(read(kQwen3, {{"sliding_window", 16}, {"layer_types", nullptr}, {"use_sliding_window", true}, {"max_window_layers", 1}})
             .attention_pattern.layer_kinds == mixed);
  expect_refused(kQwen3, {{"layer_types", {"full_attention"}}}, "layer_types: expected a list of 2 kinds");
  expect_refused(kQwen3, {{"layer_types", {"sliding_attention", "sliding_attention"}}}, "sliding_window is null or absent");
  expect_refused(kLlama31, {{"sliding_window", 16}}, "the family 'llama' has no window");
}

TEST(config, huggingface_files_are_read_strictly) {
  expect_refused(kLlama31, {{"hidden_sizes", 1}}, "folder/config.json: unknown key 'hidden_sizes' (did you mean 'hidden_size'?)");
  expect_refused(kLlama31, {{"hidden_size", "4096"}}, "hidden_size: expected an integer from 1", "found \"4096\"");
  expect_refused(kLlama31, {{"hidden_size", nullptr}}, "the key 'hidden_size' is missing");
  expect_refused(kLlama31, {{"hidden_size", 4098}}, "hidden_size (4098) is not a multiple of num_attention_heads (32)");
  expect_refused(kLlama31, {{"num_key_value_heads", 5}}, "does not divide");
  expect_refused(kLlama31, {{"architectures", {"LlamaForCausalML"}}},
                 "expected one of LlamaForCausalLM, MistralForCausalLM, Qwen3ForCausalLM", "did you mean 'LlamaForCausalLM'?");
  expect_refused(kLlama31, {{"architectures", nullptr}, {"model_type", "gpt3"}},
                 "model_type: expected one of llama, mistral, qwen3, mixtral", "found 'gpt3' (did you mean 'gpt2'?)");
  expect_refused(
      kLlama31, {{"rope_scaling", {{"rope_type", "longrope"}}}},
      "rope_scaling.rope_type: the rope type 'longrope' does not exist here; there are 'default', 'linear', 'llama3' and 'yarn'");
  expect_refused(kLlama31, {{"rope_scaling", {{"factor", nullptr}}}}, "the rope type 'llama3' wants the key 'factor'");
  expect_refused(kLlama31, {{"rope_scaling", {{"beta_fast", 32}}}}, "rope_scaling: unknown key 'beta_fast'");
  expect_refused(kLlama31, {{"hidden_act", "quick_gelu"}}, "hidden_act: expected one of 'silu'");
  expect_refused(kLlama31, {{"torch_dtype", "float8"}}, "torch_dtype: expected one of 'float32', 'bfloat16', 'float16'");
  expect_refused(kLlama31, {{"quantization_config", {{"bits", 4}}}}, "quantization_config: expected weights in float32");
}

TEST(config, huggingface_config_reads_back) {
  for (const std::string& name : model_names("configs/models")) {
    const ModelConfig config = find_model_config(name, "configs/models");
    ModelConfig back = parse_model_config(huggingface_config_text(config, DType::kF32), name);
    EXPECT(back.dtype == DType::kF32);
    back.dtype.reset();
    back.hf_repo = config.hf_repo;
    EXPECT(back == config);
  }
  ModelConfig config = find_model_config("tiny", "configs/models");
  config.attention_scale = 0.1;
  EXPECT_ERROR(
      UserError, { huggingface_config_text(config, DType::kF32); }, "attention_scale is 0.1, which LlamaForCausalLM cannot express");
  EXPECT_ERROR(UserError, { huggingface_config_text(find_model_config("tiny", "configs/models"), DType::kI32); }, "not as i32");
  // Ids beyond an overridden vocabulary are left out.
  ModelConfig small = find_model_config("llama3-8b", "configs/models");
  small.vocab_size = 100;
  EXPECT(json::parse(huggingface_config_text(small, DType::kF32)).at("eos_token_id").is_null());
}

}  // namespace mw
