#include "models/deepseek.h"

#include "layers/embedding.h"
#include "layers/mla.h"
#include "layers/norm.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"
#include "ops/dot.h"
#include "ops/shape.h"

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

namespace {

MlaWeights mla_weights(const ParameterSet& w, const std::string& at) {
  return {.query = w.find(at + "q_proj.weight"),
          .query_a = w.find(at + "q_a_proj.weight"),
          .query_a_norm = w.find(at + "q_a_layernorm.weight"),
          .query_b = w.find(at + "q_b_proj.weight"),
          .kv_a = w[at + "kv_a_proj_with_mqa.weight"],
          .kv_a_norm = w[at + "kv_a_layernorm.weight"],
          .kv_b = w[at + "kv_b_proj.weight"],
          .out = w[at + "o_proj.weight"]};
}

// transformers' DeepSeek forms these norms with 1e-6 whatever the configuration says of the others.
constexpr double kLatentNormEpsilon = 1e-6;

Tensor feed_forward(Tensor x, const ModelConfig& config, const ParameterSet& w, const std::string& mlp, int64_t layer,
                    RouterOutputs* routers) {
  if (!config.has_experts(layer)) return gated_mlp(x, gated_mlp_weights(w, mlp), config.activation);
  const std::string experts = mlp + "experts.";
  MoeWeights weights{.router = w[mlp + "gate.weight"],
                     .selection_bias = w.find(mlp + "gate.e_score_correction_bias"),
                     .gate = w[experts + "gate_proj.weight"],
                     .up = w[experts + "up_proj.weight"],
                     .down = w[experts + "down_proj.weight"]};
  if (config.moe->num_shared_experts > 0) weights.shared = gated_mlp_weights(w, mlp + "shared_experts.");
  return moe(x, weights, moe_settings(config), routers);
}

Tensor decoder_layer(Tensor x, const ModelConfig& config, const ParameterSet& w, int64_t layer, const Tokens& tokens,
                     RouterOutputs* routers) {
  const Scope scope(*x.builder, "layers." + std::to_string(layer));
  const std::string at = "model.layers." + std::to_string(layer) + ".";
  const MlaSettings settings{.scale = config.softmax_scale(), .norm_epsilon = kLatentNormEpsilon, .rope = rope_attributes(config)};
  const Tensor h = scaled_rms_norm("input_norm", x, w[at + "input_layernorm.weight"], config.norm_epsilon);
  x = residual_add("residual", x, latent_attention(h, mla_weights(w, at + "self_attn."), settings, tokens));
  const Tensor g = scaled_rms_norm("post_attention_norm", x, w[at + "post_attention_layernorm.weight"], config.norm_epsilon);
  return residual_add("output", x, feed_forward(g, config, w, at + "mlp.", layer, routers));
}

}  // namespace

Tensor deepseek_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers) {
  Tensor x = embed_tokens(w["model.embed_tokens.weight"], input_ids);
  for (int64_t i = 0; i < config.num_layers; ++i) x = decoder_layer(x, config, w, i, tokens, routers);
  return scaled_rms_norm("final_norm", x, w["model.norm.weight"], config.norm_epsilon);
}

// h' = W [RMSNorm(Emb(t)); RMSNorm(h)], one decoder layer, and a norm of its own before the shared head (DeepSeek-V3 2024, eq. 21-23; the
// order of the two halves is that of the published weights).
MtpHidden deepseek_mtp(const ModelConfig& config, const ParameterSet& w, int64_t depth, Tensor hidden, Tensor input_ids,
                       const Tokens& tokens, RouterOutputs* routers) {
  const int64_t layer = config.num_layers + depth;
  const std::string at = "model.layers." + std::to_string(layer) + ".";
  const Tensor embedded = embed_tokens(w["model.embed_tokens.weight"], input_ids);
  const Tensor e = scaled_rms_norm("embedding_norm", embedded, w[at + "enorm.weight"], config.norm_epsilon);
  const Tensor h = scaled_rms_norm("hidden_norm", hidden, w[at + "hnorm.weight"], config.norm_epsilon);
  Tensor x;
  {
    const Scope part(*hidden.builder, "projection");
    x = dot(concat({rename(e, "embed", "mtp_in"), rename(h, "embed", "mtp_in")}, "mtp_in"), w[at + "eh_proj.weight"], {"mtp_in"});
  }
  x = decoder_layer(x, config, w, layer, tokens, routers);
  return {x, scaled_rms_norm("final_norm", x, w[at + "shared_head.norm.weight"], config.norm_epsilon)};
}

}  // namespace mw
