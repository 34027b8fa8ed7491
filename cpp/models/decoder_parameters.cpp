#include "models/decoder_parameters.h"

#include <cmath>

namespace mw {

DecoderParameters::DecoderParameters(const ModelConfig& model, DType dtype, Initial norm)
    : config(model),
      prefix(model.vision ? "language_model." : ""),
      specs(dtype),
      norm_initial(norm),
      to_residual(0.02 / std::sqrt(2.0 * static_cast<double>(model.num_layers))),
      embed{"embed", model.embedding_dim},
      vocab{"vocab", model.vocab_size},
      kv_heads{"kv_heads", model.num_kv_heads},
      q_per_kv{"q_per_kv", model.q_per_kv()},
      head_dim{"head_dim", model.head_dim},
      num_experts{"experts", model.moe ? model.moe->num_experts : 0},
      expert_mlp{"expert_mlp", model.moe_mlp_dim} {}

void DecoderParameters::embedding() {
  ParameterSpec& table = specs.matrix(prefix + "model.embed_tokens.weight", {vocab}, {embed});
  table.is_embedding = true;
  if (config.tie_embeddings) table.copies = {{prefix + "lm_head.weight"}};
}

void DecoderParameters::final_norm() { norm(prefix + "model.norm", embed); }

void DecoderParameters::head() {
  if (!config.tie_embeddings) specs.matrix(prefix + "lm_head.weight", {vocab}, {embed});
}

void DecoderParameters::projection(const std::string& name, const std::vector<Dim>& out, const std::vector<Dim>& in, bool bias,
                                   double deviation) {
  specs.matrix(name + ".weight", out, in, deviation);
  if (bias) specs.vector(name + ".bias", out, Initial::kZeros);
}

void DecoderParameters::norm(const std::string& name, Dim dim) { specs.vector(name + ".weight", {std::move(dim)}, norm_initial); }

void DecoderParameters::attention(const std::string& at) {
  const std::vector<Dim> queries{kv_heads, q_per_kv, head_dim}, keys{kv_heads, head_dim};
  projection(at + "q_proj", queries, {embed}, config.bias.qkv);
  projection(at + "k_proj", keys, {embed}, config.bias.qkv);
  projection(at + "v_proj", keys, {embed}, config.bias.qkv);
  projection(at + "o_proj", {embed}, queries, config.bias.attention_output, to_residual);
  if (config.qk_norm && config.qk_norm->kind == "rms") {
    norm(at + "q_norm", head_dim);
    norm(at + "k_norm", head_dim);
  }
}

void DecoderParameters::gated_mlp(const std::string& at, int64_t width, bool bias) {
  const Dim mlp{"mlp", width};
  projection(at + "gate_proj", {mlp}, {embed}, bias);
  projection(at + "up_proj", {mlp}, {embed}, bias);
  projection(at + "down_proj", {embed}, {mlp}, bias, to_residual);
}

void DecoderParameters::experts(const std::string& at, const ExpertNames& names) {
  specs.stacked(at + "{}." + names.gate + ".weight", num_experts, {expert_mlp}, {embed});
  specs.stacked(at + "{}." + names.up + ".weight", num_experts, {expert_mlp}, {embed});
  specs.stacked(at + "{}." + names.down + ".weight", num_experts, {embed}, {expert_mlp}, to_residual);
}

}  // namespace mw
