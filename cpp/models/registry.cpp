#include "models/registry.h"

#include "base/error.h"
#include "models/decoder.h"
#include "models/deepseek.h"
#include "models/gemma.h"
#include "models/gpt3.h"
#include "models/gpt_oss.h"
#include "models/llama.h"
#include "models/llama4.h"
#include "models/mixtral.h"
#include "models/qwen3_moe.h"

namespace mw {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families{
      {.name = "llama",
       .hf_architecture = "LlamaForCausalLM",
       .hf_model_type = "llama",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = decoder_head,
       .has_attention_bias = true,
       .has_mlp_bias = true,
       .heads_divide_embedding = true},
      {.name = "mistral",
       .hf_architecture = "MistralForCausalLM",
       .hf_model_type = "mistral",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"}},
      {.name = "qwen3",
       .hf_architecture = "Qwen3ForCausalLM",
       .hf_model_type = "qwen3",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"},
       .one_layer_kind = false,
       .qk_norm = "rms",
       .has_attention_bias = true},
      {.name = "mixtral",
       .hf_architecture = "MixtralForCausalLM",
       .hf_model_type = "mixtral",
       .parameters = mixtral_parameters,
       .hidden = mixtral_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"},
       .has_experts = true,
       .router = {.normalize_topk_weights = true},
       .one_mlp_width = true},
      {.name = "qwen3_moe",
       .hf_architecture = "Qwen3MoeForCausalLM",
       .hf_model_type = "qwen3_moe",
       .parameters = qwen3_moe_parameters,
       .hidden = qwen3_moe_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"},
       .qk_norm = "rms",
       .has_attention_bias = true,
       .has_experts = true,
       .router_choices = {"normalize_topk_weights", "moe_layer_step"}},
      {.name = "gemma",
       .hf_architecture = "GemmaForCausalLM",
       .hf_model_type = "gemma",
       .parameters = gemma_parameters,
       .hidden = gemma_hidden,
       .head = decoder_head,
       .has_attention_bias = true},
      {.name = "gemma2",
       .hf_architecture = "Gemma2ForCausalLM",
       .hf_model_type = "gemma2",
       .parameters = gemma_parameters,
       .hidden = gemma_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"},
       .one_layer_kind = false,
       .has_attention_bias = true,
       .heads_divide_embedding = true,
       .counts_windows = true,
       .has_softcaps = true,
       .has_attention_scale = true},
      {.name = "gemma3",
       .hf_architecture = "Gemma3ForCausalLM",
       .hf_model_type = "gemma3_text",
       .parameters = gemma_parameters,
       .hidden = gemma_hidden,
       .head = decoder_head,
       .hf_multimodal_architecture = "Gemma3ForConditionalGeneration",
       .hf_multimodal_model_type = "gemma3",
       .layer_kinds = {"global", "sliding"},
       .one_layer_kind = false,
       .qk_norm = "rms",
       .has_attention_bias = true,
       .heads_divide_embedding = true,
       .counts_windows = true,
       .has_softcaps = true,
       .has_attention_scale = true},
      {.name = "deepseek2",
       .hf_architecture = "DeepseekV2ForCausalLM",
       .hf_model_type = "deepseek_v2",
       .parameters = deepseek_parameters,
       .hidden = deepseek_hidden,
       .head = decoder_head,
       .pair_layout = "interleaved",
       .heads_divide_embedding = true,
       .has_experts = true,
       .router_choices = {"shared_experts", "first_dense_layers", "routed_scaling_factor", "groups"},
       .has_mla = true},
      {.name = "deepseek3",
       .hf_architecture = "DeepseekV3ForCausalLM",
       .hf_model_type = "deepseek_v3",
       .parameters = deepseek_parameters,
       .hidden = deepseek_hidden,
       .head = decoder_head,
       .mtp = deepseek_mtp,
       .pair_layout = "interleaved",
       .has_experts = true,
       .router = {.routing_score = "sigmoid", .routing_selection_bias = true, .group_score = "top2_sum"},
       .router_choices = {"shared_experts", "first_dense_layers", "routed_scaling_factor", "groups", "normalize_topk_weights"},
       .has_mla = true,
       .has_mtp = true},
      {.name = "gpt_oss",
       .hf_architecture = "GptOssForCausalLM",
       .hf_model_type = "gpt_oss",
       .parameters = gpt_oss_parameters,
       .hidden = gpt_oss_hidden,
       .head = decoder_head,
       .layer_kinds = {"global", "sliding"},
       .one_layer_kind = false,
       .always_biased = true,
       .counts_windows = true,
       .has_experts = true,
       .router = {.routing_score = "softmax_of_top_k"},
       .one_mlp_width = true},
      {.name = "llama4",
       .hf_architecture = "Llama4ForCausalLM",
       .hf_model_type = "llama4_text",
       .parameters = llama4_parameters,
       .hidden = llama4_hidden,
       .head = decoder_head,
       .hf_multimodal_architecture = "Llama4ForConditionalGeneration",
       .hf_multimodal_model_type = "llama4",
       .layer_kinds = {"global", "global_without_rope", "chunked"},
       .one_layer_kind = false,
       .pair_layout = "interleaved",
       .qk_norm = "l2",
       .qk_norm_optional = true,
       .has_attention_bias = true,
       .has_experts = true,
       .router = {.num_shared_experts = 1, .routing_score = "sigmoid", .weight_applied_to = "expert input"},
       .router_choices = {"moe_layer_step"},
       .has_temperature_tuning = true},
      {.name = "gpt3",
       .hf_architecture = "GPT2LMHeadModel",
       .hf_model_type = "gpt2",
       .parameters = gpt3_parameters,
       .hidden = gpt3_hidden,
       .head = gpt3_head,
       .rope_scalings = {"none"},
       .always_biased = true,
       .gated_mlp = false,
       .heads_fill_embedding = true,
       .has_rope = false,
       .has_attention_scale = true},
  };
  return families;
}

const ModelFamily& model_family(const std::string& name) {
  std::vector<std::string> names;
  for (const ModelFamily& family : model_families()) {
    if (family.name == name) return family;
    names.push_back(family.name);
  }
  std::string listed;
  for (const std::string& known : names) listed += (listed.empty() ? "" : ", ") + known;
  throw UserError("there is no model family '" + name + "'" + did_you_mean(name, names) + "; there are " + listed);
}

std::vector<ParameterSpec> model_parameters(const ModelConfig& config, DType dtype) {
  return model_family(config.family).parameters(config, dtype);
}

}  // namespace mw
