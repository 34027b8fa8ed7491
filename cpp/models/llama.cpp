#include "models/llama.h"

#include <cmath>

#include "layers/embedding.h"
#include "layers/gated_mlp.h"
#include "layers/norm.h"

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
          .rope = RopeAttributes{.theta = config.rope.theta,
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

Tensor llama_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs*) {
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
  const Dim embed{"embed", config.embedding_dim}, mlp{"mlp", config.mlp_dim}, vocab{"vocab", config.vocab_size};
  const Dim kv_heads{"kv_heads", config.num_kv_heads}, q_per_kv{"q_per_kv", config.q_per_kv()}, head_dim{"head_dim", config.head_dim};
  const std::vector<Dim> queries{kv_heads, q_per_kv, head_dim}, keys{kv_heads, head_dim};
  const double to_residual = 0.02 / std::sqrt(2.0 * static_cast<double>(config.num_layers));

  SpecList specs(dtype);
  ParameterSpec& table = specs.matrix("model.embed_tokens.weight", {vocab}, {embed});
  table.is_embedding = true;
  if (config.tie_embeddings) table.copies = {{"lm_head.weight"}};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".", attention = at + "self_attn.", feed_forward = at + "mlp.";
    const auto projection = [&](const std::string& name, const std::vector<Dim>& out, const std::vector<Dim>& in, bool bias,
                                double deviation = 0.02) {
      specs.matrix(name + ".weight", out, in, deviation);
      if (bias) specs.vector(name + ".bias", out, Initial::kZeros);
    };
    projection(attention + "q_proj", queries, {embed}, config.bias.qkv);
    projection(attention + "k_proj", keys, {embed}, config.bias.qkv);
    projection(attention + "v_proj", keys, {embed}, config.bias.qkv);
    projection(attention + "o_proj", {embed}, queries, config.bias.attention_output, to_residual);
    if (config.qk_norm) {
      specs.vector(attention + "q_norm.weight", {head_dim}, Initial::kOnes);
      specs.vector(attention + "k_norm.weight", {head_dim}, Initial::kOnes);
    }
    projection(feed_forward + "gate_proj", {mlp}, {embed}, config.bias.mlp);
    projection(feed_forward + "up_proj", {mlp}, {embed}, config.bias.mlp);
    projection(feed_forward + "down_proj", {embed}, {mlp}, config.bias.mlp, to_residual);
    specs.vector(at + "input_layernorm.weight", {embed}, Initial::kOnes);
    specs.vector(at + "post_attention_layernorm.weight", {embed}, Initial::kOnes);
  }
  specs.vector("model.norm.weight", {embed}, Initial::kOnes);
  if (!config.tie_embeddings) specs.matrix("lm_head.weight", {vocab}, {embed});
  return std::move(specs.list);
}

}  // namespace mw
