// GptOssForCausalLM, GPT2LMHeadModel.
#include "base/error.h"
#include "config/huggingface_layers.h"
#include "config/huggingface_tables.h"

namespace mw {
namespace {

using nlohmann::json;

ModelConfig gpt_oss_defaults() {
  ModelConfig c;
  c.num_kv_heads = 8;
  c.head_dim = 64;
  c.max_position_embeddings = 131072;
  c.norm_epsilon = 1e-5;
  c.activation = "clamped_swiglu";
  c.rope.theta = 150000;
  c.rope.scaling = {.kind = "yarn", .factor = 32, .original_max_position_embeddings = 4096, .truncate = false};
  c.attention_pattern.sliding_window = 128;
  c.bias = {.qkv = true, .attention_output = true, .mlp = true};
  c.moe = MoeConfig{.num_experts = 128, .experts_per_token = 4, .routing_score = "softmax_of_top_k", .load_balance_loss_weight = 0.001};
  return c;
}

void write_gpt_oss(json& out, const ModelConfig& config) {
  write_huggingface_window(out, config);
  out["hidden_act"] = "silu";
  out["attention_bias"] = true;
  out["experts_per_token"] = config.moe->experts_per_token;
  out["router_aux_loss_coef"] = config.moe->load_balance_loss_weight;
}

ModelConfig gpt2_defaults() {
  ModelConfig c;
  c.max_position_embeddings = 1024;
  c.activation = "gelu_tanh";
  c.norm_epsilon = 1e-5;
  c.tie_embeddings = true;
  c.bias = {.qkv = true, .attention_output = true, .mlp = true};
  c.bos_token_id = 50256;
  c.eos_token_ids = {50256};
  return c;
}

void read_gpt2(ModelConfig& config, const json& object, const JsonPlace& place) {
  if (config.mlp_dim == 0) config.mlp_dim = 4 * config.embedding_dim;
  if (const json* scaled = present_json(object, "scale_attn_weights"); scaled && !json_flag(*scaled, place.at("scale_attn_weights")))
    config.attention_scale = 1.0;
}

void write_gpt2(json& out, const ModelConfig& config) {
  ModelConfig plain = config;
  plain.attention_scale.reset();
  const bool scaled = config.softmax_scale() == plain.softmax_scale();
  if (!scaled && config.softmax_scale() != 1.0) {
    throw UserError(concat_text("model '", config.name, "': attention_scale is ", *config.attention_scale, ", which ",
                                config.hf_architecture, " cannot express; it has head_dim^-0.5 or 1"));
  }
  out["scale_attn_weights"] = scaled;
  out["attn_pdrop"] = out["embd_pdrop"] = out["resid_pdrop"] = 0.0;
  out["n_ctx"] = config.max_position_embeddings;
  for (const char* key : {"attention_dropout", "rope_theta", "rope_scaling", "rope_parameters"}) out.erase(key);
}

}  // namespace

std::vector<HuggingFaceTable> gpt_tables() {
  return {
      {.family = "gpt_oss",
       .fields = decoder_keys({{"intermediate_size", "moe_mlp_dim"},
                               {"num_local_experts", "moe.num_experts"},
                               {"num_experts_per_tok", "moe.experts_per_token"},
                               {"router_aux_loss_coef", "moe.load_balance_loss_weight"},
                               {"output_router_logits", "moe.output_router_logits"},
                               {"swiglu_limit", "activation_clamp_limit"},
                               {"swiglu_alpha", "activation_alpha"},
                               {"sliding_window", "attention_pattern.sliding_window"}}),
       .aliases = {{"num_experts", "moe.num_experts"}, {"experts_per_token", "moe.experts_per_token"}},
       .defaults = gpt_oss_defaults(),
       .activation_key = "",
       .read_together = {"layer_types"},
       .always = {{"hidden_act", "silu"}},
       .read = read_huggingface_window,
       .write = write_gpt_oss},
      {.family = "gpt3",
       .fields = {{"n_embd", "embedding_dim"},
                  {"n_inner", "mlp_dim"},
                  {"n_layer", "num_layers"},
                  {"n_head", "num_query_heads"},
                  {"vocab_size", "vocab_size"},
                  {"n_positions", "max_position_embeddings"},
                  {"layer_norm_epsilon", "norm_epsilon"},
                  {"tie_word_embeddings", "tie_embeddings"},
                  {"bos_token_id", "bos_token_id"},
                  {"eos_token_id", "eos_token_id"},
                  {"pad_token_id", "pad_token_id"}},
       .aliases = {{"hidden_size", "embedding_dim"},
                   {"num_hidden_layers", "num_layers"},
                   {"num_attention_heads", "num_query_heads"},
                   {"max_position_embeddings", "max_position_embeddings"}},
       .defaults = gpt2_defaults(),
       .required = {"n_embd", "n_layer", "n_head", "vocab_size"},
       .activation_key = "activation_function",
       .read_together = {"scale_attn_weights"},
       .without_meaning = {"attn_pdrop", "embd_pdrop", "resid_pdrop", "n_ctx", "summary_type", "summary_use_proj", "summary_activation",
                           "summary_proj_to_labels", "summary_first_dropout"},
       .always = {{"scale_attn_by_inverse_layer_idx", false}, {"reorder_and_upcast_attn", false}, {"add_cross_attention", false}},
       .read = read_gpt2,
       .write = write_gpt2},
  };
}

}  // namespace mw
