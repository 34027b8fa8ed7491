#include "models/llama.h"

#include "layers/embedding.h"
#include "layers/gated_mlp.h"
#include "layers/norm.h"
#include "models/decoder_parameters.h"

namespace mw {
namespace {

AttentionWeights attention_weights(const ParameterSet& w, const std::string& at) {
  return {.query = w[at + "q_proj.weight"],
          .key = w[at + "k_proj.weight"],
          .value = w[at + "v_proj.weight"],
          .out = w[at + "o_proj.weight"],
          .query_bias = w.find(at + "q_proj.bias"),
          .key_bias = w.find(at + "k_proj.bias"),
          .value_bias = w.find(at + "v_proj.bias"),
          .out_bias = w.find(at + "o_proj.bias"),
          .query_norm = w.find(at + "q_norm.weight"),
          .key_norm = w.find(at + "k_norm.weight")};
}

GatedMlpWeights mlp_weights(const ParameterSet& w, const std::string& at) {
  return {.gate = w[at + "gate_proj.weight"],
          .up = w[at + "up_proj.weight"],
          .down = w[at + "down_proj.weight"],
          .gate_bias = w.find(at + "gate_proj.bias"),
          .up_bias = w.find(at + "up_proj.bias"),
          .down_bias = w.find(at + "down_proj.bias")};
}

AttentionSettings attention_settings(const ModelConfig& config, int64_t layer) {
  const RopeScaling& scaling = config.rope.scaling;
  return {.scale = config.softmax_scale(),
          .window = config.layer_kind(layer) == "sliding" ? config.attention_pattern.sliding_window : 0,
          .norm_epsilon = config.norm_epsilon,
          .rope = {.theta = config.rope.theta,
                   .pairing = config.rope.pair_layout_in_hf_weights == "interleaved" ? "interleaved" : "half",
                   .scaling = scaling.kind,
                   .factor = scaling.factor,
                   .low_freq_factor = scaling.low_frequency_factor,
                   .high_freq_factor = scaling.high_frequency_factor,
                   .original_positions = scaling.original_max_position_embeddings}};
}

Tensor decoder_layer(Tensor x, const ModelConfig& config, const ParameterSet& w, int64_t layer, const Tokens& tokens) {
  const std::string at = "model.layers." + std::to_string(layer) + ".";
  const Tensor h = scaled_rms_norm("input_norm", x, w[at + "input_layernorm.weight"], config.norm_epsilon);
  x = residual_add("residual", x, self_attention(h, attention_weights(w, at + "self_attn."), attention_settings(config, layer), tokens));
  const Tensor g = scaled_rms_norm("post_attention_norm", x, w[at + "post_attention_layernorm.weight"], config.norm_epsilon);
  return residual_add("output", x, gated_mlp(g, mlp_weights(w, at + "mlp."), config.activation));
}

}  // namespace

Tensor llama_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens) {
  Tensor x = embed_tokens(w["model.embed_tokens.weight"], input_ids);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const Scope scope(*x.builder, "layers." + std::to_string(i));
    x = decoder_layer(x, config, w, i, tokens);
  }
  return scaled_rms_norm("final_norm", x, w["model.norm.weight"], config.norm_epsilon);
}

Tensor llama_head(const ModelConfig& config, const ParameterSet& w) {
  return w[config.tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"];
}

std::vector<ParameterSpec> llama_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    p.attention(at + "self_attn.");
    p.gated_mlp(at + "mlp.", config.mlp_dim, config.bias.mlp);
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

}  // namespace mw
