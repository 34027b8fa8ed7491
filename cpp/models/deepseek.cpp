#include "models/deepseek.h"

#include "models/decoder_parameters.h"

namespace mw {

namespace {

void latent_attention(DecoderParameters& p, const std::string& at) {
  const MlaConfig& mla = *p.config.mla;
  const Dim q_lora{"q_lora", mla.q_lora_rank}, kv_lora{"kv_lora", mla.kv_lora_rank};
  const Dim latent_and_key{"kv_lora_rope", mla.kv_lora_rank + mla.qk_rope_head_dim};
  const Dim key_and_value{"nope_value", mla.qk_nope_head_dim + mla.v_head_dim}, value_dim{"value_dim", mla.v_head_dim};
  const std::vector<Dim> queries{p.kv_heads, p.head_dim};
  if (mla.q_lora_rank == 0) {
    p.projection(at + "q_proj", queries, {p.embed}, false);
  } else {
    p.projection(at + "q_a_proj", {q_lora}, {p.embed}, false);
    p.norm(at + "q_a_layernorm", q_lora);
    p.projection(at + "q_b_proj", queries, {q_lora}, false);
  }
  p.projection(at + "kv_a_proj_with_mqa", {latent_and_key}, {p.embed}, false);
  p.norm(at + "kv_a_layernorm", kv_lora);
  p.projection(at + "kv_b_proj", {p.kv_heads, key_and_value}, {kv_lora}, false);
  p.projection(at + "o_proj", {p.embed}, {p.kv_heads, value_dim}, false, p.to_residual);
}

void decoder_layer(DecoderParameters& p, int64_t layer) {
  const ModelConfig& config = p.config;
  const std::string at = "model.layers." + std::to_string(layer) + ".";
  latent_attention(p, at + "self_attn.");
  if (config.has_experts(layer)) {
    p.experts(at + "mlp.experts.");
    p.projection(at + "mlp.gate", {p.num_experts}, {p.embed}, false);
    if (config.moe->routing_selection_bias) {
      ParameterSpec& bias = p.specs.vector(at + "mlp.gate.e_score_correction_bias", {p.num_experts}, Initial::kZeros);
      bias.type.dtype = DType::kF32;
      bias.trained = false;
    }
    p.gated_mlp(at + "mlp.shared_experts.", config.moe->shared_expert_mlp_dim);
  } else {
    p.gated_mlp(at + "mlp.", config.mlp_dim);
  }
  p.norm(at + "input_layernorm", p.embed);
  p.norm(at + "post_attention_layernorm", p.embed);
}

// Each further copy of the embedding table and the head in the published files.
void add_copies(const ModelConfig& config, std::vector<ParameterSpec>& list) {
  ParameterSpec& table = list.front();
  ParameterSpec& head = config.tie_embeddings ? table : list.back();
  for (int64_t i = config.num_layers; i < config.num_layers + config.mtp_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    table.copies.push_back({at + "embed_tokens.weight", true});
    head.copies.push_back({at + "shared_head.head.weight", true});
  }
}

}  // namespace

std::vector<ParameterSpec> deepseek_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) decoder_layer(p, i);
  for (int64_t i = config.num_layers; i < config.num_layers + config.mtp_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    p.norm(at + "enorm", p.embed);
    p.norm(at + "hnorm", p.embed);
    p.projection(at + "eh_proj", {p.embed}, {{"mtp_in", 2 * config.embedding_dim}}, false);
    decoder_layer(p, i);
    p.norm(at + "shared_head.norm", p.embed);
  }
  p.final_norm();
  p.head();
  add_copies(config, p.specs.list);
  return std::move(p.specs.list);
}

}  // namespace mw
