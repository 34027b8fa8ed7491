// The config.json of the published models, as the hub has them, and what is refused in each family.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "config/huggingface_config.h"
#include "config/model_config_json.h"
#include "config/model_lookup.h"
#include "runner.h"

namespace mw {
namespace {

using nlohmann::json;

const char* const kMixtral = R"({"architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
  "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
  "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
  "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.36.0.dev0",
  "use_cache": true, "vocab_size": 32000})";

const char* const kGemma = R"({"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 2,
  "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_activation": null, "hidden_size": 2048, "initializer_range": 0.02,
  "intermediate_size": 16384, "max_position_embeddings": 8192, "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18,
  "num_key_value_heads": 1, "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0,
  "torch_dtype": "bfloat16", "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 256000})";

const char* const kGemma2 = R"({"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 30.0,
  "head_dim": 128, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608,
  "initializer_range": 0.02, "intermediate_size": 36864, "max_position_embeddings": 8192, "model_type": "gemma2",
  "num_attention_heads": 32, "num_hidden_layers": 46, "num_key_value_heads": 16, "pad_token_id": 0, "query_pre_attn_scalar": 144,
  "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "bfloat16", "use_cache": true,
  "vocab_size": 256000})";

// The hub's 4B leaves out what its class assumes.
const char* const kGemma3 = R"({"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
  "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
  "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
  "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
  "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false}})";

const char* const kQwen3Moe = R"({"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
  "initializer_range": 0.02, "intermediate_size": 6144, "max_position_embeddings": 262144, "max_window_layers": 48, "mlp_only_layers": [],
  "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
  "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-06,
  "rope_scaling": null, "rope_theta": 10000000, "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})";

const char* const kDeepseek2 = R"({"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"}, "aux_loss_alpha": 0.001, "bos_token_id": 100000,
  "eos_token_id": 100001, "ep_size": 1, "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
  "intermediate_size": 12288, "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v2",
  "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 160, "n_shared_experts": 2,
  "norm_topk_prob": false, "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 60, "num_key_value_heads": 128,
  "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 4096, "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 16.0, "scoring_func": "softmax", "seq_aux": true, "tie_word_embeddings": false,
  "topk_group": 3, "topk_method": "group_limited_greedy", "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128,
  "vocab_size": 102400})";

const char* const kDeepseek3 = R"({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
  "initializer_range": 0.02, "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
  "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
  "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
  "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
  "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096, "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false, "topk_group": 4,
  "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": true, "v_head_dim": 128, "vocab_size": 129280})";

const char* const kGptOss = R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
  "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
  "initial_context_length": 4096, "initializer_range": 0.02, "intermediate_size": 2880,
  "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"], "max_position_embeddings": 131072,
  "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 4, "num_key_value_heads": 8,
  "num_local_experts": 32, "output_router_logits": false, "pad_token_id": 199999,
  "quantization_config": {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"], "quant_method": "mxfp4"},
  "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
    "rope_type": "yarn", "truncate": false},
  "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 201088})";

const char* const kLlama4 = R"({"architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080, "eoi_token_index": 200081,
  "image_token_index": 200092, "model_type": "llama4", "tie_word_embeddings": false, "torch_dtype": "bfloat16",
  "text_config": {"_attn_implementation_autoset": true, "attention_bias": false, "attention_chunk_size": 8192, "attention_dropout": 0.0,
    "bos_token_id": 200000, "eos_token_id": [200001, 200007, 200008], "for_llm_compressor": false, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 5120, "initializer_range": 0.02, "interleave_moe_layer_step": 1, "intermediate_size": 8192,
    "intermediate_size_mlp": 16384, "max_position_embeddings": 10485760, "model_type": "llama4_text", "no_rope_layers": [],
    "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "num_local_experts": 16,
    "output_router_logits": false, "pad_token_id": null, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0,
      "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0, "torch_dtype": "bfloat16", "use_cache": true,
    "use_qk_norm": true, "vocab_size": 202048},
  "vision_config": {"attention_dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1408, "image_size": 336, "initializer_range": 0.02,
    "intermediate_size": 5632, "model_type": "llama4_vision_model", "multi_modal_projector_bias": false, "norm_eps": 1e-05,
    "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 34, "patch_size": 14, "pixel_shuffle_ratio": 0.5,
    "projector_dropout": 0.0, "projector_input_dim": 4096, "projector_output_dim": 4096, "rope_theta": 10000, "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default", "vision_output_dim": 4096}})";

const char* const kGpt2 = R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
  "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
  "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1,
  "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
  "summary_use_proj": true, "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257})";

ModelConfig read(const char* text, const json& changes = json::object()) {
  json object = json::parse(text);
  object.merge_patch(changes);  // null removes a key
  return model_config_from_json(object, "folder/config.json");
}

ModelConfig published(const std::string& name, const json& overrides = json::object()) {
  ModelConfig config = find_model_config(name, "configs/models");
  override_model_config(config, overrides);
  config.name = "folder";
  config.hf_repo = "";
  config.dtype = DType::kBF16;
  return config;
}

template <typename... Parts>
void expect_refused(const char* text, const json& changes, const Parts&... parts) {
  EXPECT_ERROR(UserError, { read(text, changes); }, parts...);
}

}  // namespace

TEST(config, huggingface_files_of_the_hub_are_our_models) {
  EXPECT(read(kMixtral) == published("mixtral-8x7b"));
  EXPECT(read(kGemma) == published("gemma-2b"));
  EXPECT(read(kGemma2) == published("gemma2-27b"));
  EXPECT(read(kGemma3) == published("gemma3-4b"));
  EXPECT(read(kQwen3Moe) == published("qwen3-30b-a3b"));
  EXPECT(read(kDeepseek2) == published("deepseek2-236b"));
  // config.json does not say the weight of the balance loss, nor GPT-OSS's how a text begins.
  EXPECT(read(kDeepseek3) == published("deepseek3-671b", {{"moe", {{"load_balance_loss_weight", 0}}}}));
  EXPECT(read(kGptOss) == published("gpt-oss-20b", {{"num_layers", 4}, {"bos_token_id", nullptr}}));
  EXPECT(read(kLlama4) == published("llama4-17b-16e"));
  const ModelConfig gpt2 = read(kGpt2);
  EXPECT(gpt2.family == "gpt3" && gpt2.mlp_dim == 3072 && gpt2.head_dim == 64 && gpt2.tie_embeddings && gpt2.activation == "gelu_tanh");
}

TEST(config, huggingface_layer_kinds) {
  using Kinds = std::vector<std::string>;
  // Llama 4: rope and chunks, layer by layer; an early file's number for the tuning of temperatures.
  const auto text = [](const json& changes) { return json{{"text_config", changes}}; };
  const ModelConfig llama =
      read(kLlama4, text({{"num_hidden_layers", 4}, {"no_rope_layers", {1, 0, 1, 0}}, {"attn_temperature_tuning", 4}}));
  EXPECT(llama.attention_pattern.layer_kinds == (Kinds{"chunked", "global_without_rope"}) && llama.temperature_tuning);
  EXPECT(read(kLlama4, text({{"no_rope_layer_interval", 2}})).attention_pattern == llama.attention_pattern);
  EXPECT(!read(kLlama4, text({{"attn_temperature_tuning", false}})).temperature_tuning);
  EXPECT(!read(kLlama4, text({{"use_qk_norm", false}})).qk_norm);
  EXPECT_EQ(read(kLlama4, text({{"num_hidden_layers", 4}, {"moe_layers", {1, 3}}})).moe->moe_layer_step, 2);
  expect_refused(kLlama4, text({{"num_hidden_layers", 4}, {"moe_layers", {0, 3}}}), "text_config.moe_layers: expected every 1. layer");
  expect_refused(kLlama4, text({{"num_hidden_layers", 4}, {"no_rope_layers", {1, 0, 1}}}),
                 "no_rope_layers: expected a list of a 0 or 1 per layer");
  expect_refused(kLlama4,
                 text({{"num_hidden_layers", 2}, {"no_rope_layers", {1, 0}}, {"layer_types", {"full_attention", "chunked_attention"}}}),
                 "layer 1 has no rope and is not 'full_attention'");
  // Gemma 3: a pattern's length, or the kinds themselves; two thetas in either spelling.
  EXPECT(read(kGemma3, text({{"sliding_window_pattern", 2}})).attention_pattern.layer_kinds == (Kinds{"sliding", "global"}));
  const json rope{{"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
                  {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  EXPECT(read(kGemma3, text({{"rope_scaling", nullptr}, {"rope_parameters", rope}})) == published("gemma3-4b"));
  EXPECT_EQ(*read(kGemma3, text({{"rope_local_base_freq", 5e3}})).rope.local_theta, 5e3);
  expect_refused(kGemma3, text({{"rope_parameters", {{"rope_type", "default"}}}}), "unknown key 'rope_type'");
  expect_refused(kGemma3, text({{"rope_parameters", {{"sliding_attention", {{"rope_type", "linear"}, {"factor", 2}}}}}}),
                 "sliding_attention: expected the rope type 'default'");
}

TEST(config, huggingface_mathematics_that_do_not_exist_here_are_refused) {
  expect_refused(kMixtral, {{"router_jitter_noise", 0.1}},
                 "router_jitter_noise: expected 0, found 0.1, which changes what MixtralForCausalLM");
  expect_refused(kQwen3Moe, {{"mlp_only_layers", {0}}}, "mlp_only_layers: expected [], found [0]");
  expect_refused(kGemma2, {{"use_bidirectional_attention", true}}, "use_bidirectional_attention: expected false, found true");
  expect_refused(kGemma2, {{"hidden_act", "silu"}}, "hidden_act: expected the same activation as in hidden_activation, found \"silu\"");
  expect_refused(kDeepseek3, {{"scoring_func", "softmax"}}, "scoring_func: expected \"sigmoid\", found \"softmax\"");
  expect_refused(kDeepseek3, {{"rope_interleave", false}}, "rope_interleave: expected true, found false");
  expect_refused(kDeepseek3, {{"n_group", 3}}, "moe.num_expert_groups (3) does not divide moe.num_experts (256)");
  expect_refused(kDeepseek3, {{"attention_bias", true}}, "the family 'deepseek3' has no bias in attention");
  expect_refused(kDeepseek2, {{"norm_topk_prob", true}}, "norm_topk_prob: expected false, found true");
  expect_refused(kDeepseek2, {{"topk_method", "noaux_tc"}}, "topk_method: expected one of 'greedy', 'group_limited_greedy'");
  EXPECT_EQ(read(kDeepseek2, {{"topk_method", "greedy"}}).moe->num_expert_groups, 1);
  expect_refused(kGptOss, {{"attention_bias", false}}, "GptOssForCausalLM has biases everywhere");
  expect_refused(kGpt2, {{"scale_attn_by_inverse_layer_idx", true}}, "scale_attn_by_inverse_layer_idx: expected false");
  expect_refused(kGpt2, {{"reorder_and_upcast_attn", true}}, "reorder_and_upcast_attn: expected false");
  expect_refused(kGpt2, {{"rope_theta", 1e4}}, "unknown key 'rope_theta'");
  expect_refused(kGpt2, {{"n_head", 7}}, "hidden_size (768) is not a multiple of num_attention_heads (7)");
  EXPECT_EQ(*read(kGpt2, {{"scale_attn_weights", false}}).attention_scale, 1.0);
  expect_refused(kGemma3, {{"text_config", nullptr}}, "the key 'text_config' is missing");
  expect_refused(kGemma3, {{"vision_config", {{"vision_use_head", true}}}}, "vision_config.vision_use_head: expected false, found true");
  expect_refused(kGemma3, {{"vision_config", {{"hidden_sizes", 1}}}},
                 "vision_config: unknown key 'hidden_sizes' (did you mean 'hidden_size'?)");
  expect_refused(kGemma3, {{"mm_tokens", 1}}, "folder/config.json: unknown key 'mm_tokens'");
  expect_refused(kDeepseek3, {{"quantization_config", {{"fmt", "e5m2"}}}}, "quantization_config.fmt: expected 'e4m3'");
}

TEST(config, huggingface_what_a_class_cannot_express_is_not_written) {
  const auto write = [](const std::string& name, const json& overrides) {
    return json::parse(huggingface_config_text(published(name, overrides), DType::kBF16));
  };
  EXPECT_ERROR(
      UserError, { write("gemma2-2b", {{"attention_scale", 0.3}}); },
      "Gemma2ForCausalLM cannot express; its square is one over a whole number");
  EXPECT_ERROR(UserError, { write("gpt3-52k", {{"attention_scale", 0.3}}); }, "GPT2LMHeadModel cannot express");
  EXPECT_ERROR(UserError, { write("gemma-2b", {{"activation", "gelu_erf"}}); }, "GemmaForCausalLM cannot express");
  EXPECT_ERROR(UserError, { write("llama4-17b-16e", {{"temperature_tuning", {{"floor_scale", 1.5}}}}); }, "has a whole number");
  EXPECT_EQ(write("gemma2-27b", json::object())["query_pre_attn_scalar"], 144);
  EXPECT_EQ(write("gemma3-4b", json::object())["text_config"]["sliding_window_pattern"], 6);
  // Text alone, from the multimodal model.
  EXPECT_EQ(write("gemma3-4b", {{"vision", nullptr}})["architectures"][0], "Gemma3ForCausalLM");
}

TEST(config, routers_that_a_family_does_not_have_are_refused) {
  const auto refused = [](const std::string& name, const json& overrides, const std::string& message) {
    EXPECT_ERROR(UserError, { published(name, overrides); }, message);
  };
  refused("mixtral-8x7b", {{"moe.routing_score", "sigmoid"}}, "moe.routing_score is sigmoid, but MixtralForCausalLM always has softmax");
  refused("mixtral-8x7b", {{"moe.normalize_topk_weights", false}},
          "moe.normalize_topk_weights is false, but MixtralForCausalLM always has true");
  refused("gpt-oss-20b", {{"mlp_dim", 100}, {"moe_mlp_dim", 96}}, "GptOssForCausalLM has one size for both");
  refused("deepseek3-671b", {{"moe.num_experts", 8}, {"moe.experts_per_token", 2}},
          "groups scored by their two best have 2 experts or more");
  refused("deepseek2-16b", {{"moe.num_shared_experts", 0}}, "moe.num_shared_experts is 0, but DeepseekV2ForCausalLM has 1 or more");
  refused("llama3-8b", {{"moe", {{"num_experts", 4}}}}, "the family 'llama' never has experts");
  refused("gpt3-52k", {{"embedding_dim", 24}}, "embedding_dim is 24, but in GPT2LMHeadModel it is num_query_heads * head_dim = 16");
  refused("gemma3-4b", {{"vision.patch_size", 15}},
          "vision.patch_size (15) does not divide vision.image_size (896); the nearest image_size is 885");
  refused("gemma3-4b", {{"vision.kind", "llama4"}}, "vision.kind is 'llama4', but the family 'gemma3' has 'siglip'");
  refused("llama4-17b-16e", {{"vision.image_size", 350}}, "an image of 25 x 25 patches has a token for each 2 x 2 of them");
  refused("qwen3-0.6b", {{"vision", {{"kind", "siglip"}}}}, "the family 'qwen3' has no image encoder");
  // What follows from the changed fields follows.
  EXPECT_EQ(published("mixtral-8x7b", {{"intermediate_size", 64}}).mlp_dim, 64);
  EXPECT_EQ(published("deepseek2-16b", {{"moe_intermediate_size", 64}}).moe->shared_expert_mlp_dim, 128);
  EXPECT_EQ(published("deepseek2-16b", {{"qk_rope_head_dim", 32}, {"num_attention_heads", 8}}).head_dim, 160);
}

}  // namespace mw
