#include "models/gemma.h"

#include <cmath>

#include "layers/embedding.h"
#include "layers/gated_mlp.h"
#include "layers/norm.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

namespace mw {

std::vector<ParameterSpec> gemma_parameters(const ModelConfig& config, DType dtype) {
  const bool norms_behind = config.family != "gemma";
  DecoderParameters p(config, dtype, Initial::kZeros);
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = p.prefix + "model.layers." + std::to_string(i) + ".";
    p.attention(at + "self_attn.");
    p.gated_mlp(at + "mlp.", config.mlp_dim);
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
    if (!norms_behind) continue;
    p.norm(at + "pre_feedforward_layernorm", p.embed);
    p.norm(at + "post_feedforward_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

namespace {

Tensor layer_of_gemma1(Tensor x, const ModelConfig& config, const ParameterSet& w, const std::string& at, int64_t layer,
                       const Tokens& tokens) {
  const auto norm = [&](const char* scope, Tensor y, const std::string& name) {
    return scaled_rms_norm(scope, y, w[at + name + ".weight"], config.norm_epsilon, true);
  };
  const Tensor h = norm("input_norm", x, "input_layernorm");
  x = residual_add("residual", x, self_attention(h, attention_weights(w, at + "self_attn."), attention_settings(config, layer), tokens));
  const Tensor g = norm("post_attention_norm", x, "post_attention_layernorm");
  return residual_add("output", x, gated_mlp(g, gated_mlp_weights(w, at + "mlp."), config.activation));
}

// Gemma 2 and 3: what attention and mlp give is normalised too before it is added.
Tensor layer_between_norms(Tensor x, const ModelConfig& config, const ParameterSet& w, const std::string& at, int64_t layer,
                           const Tokens& tokens) {
  const auto norm = [&](const char* scope, Tensor y, const std::string& name) {
    return scaled_rms_norm(scope, y, w[at + name + ".weight"], config.norm_epsilon, true);
  };
  AttentionSettings settings = attention_settings(config, layer);
  settings.norm_offset_one = true;
  const Tensor h = norm("input_norm", x, "input_layernorm");
  const Tensor attended = self_attention(h, attention_weights(w, at + "self_attn."), settings, tokens);
  x = residual_add("residual", x, norm("post_attention_norm", attended, "post_attention_layernorm"));
  const Tensor g = norm("pre_mlp_norm", x, "pre_feedforward_layernorm");
  const Tensor fed = gated_mlp(g, gated_mlp_weights(w, at + "mlp."), config.activation);
  return residual_add("output", x, norm("post_mlp_norm", fed, "post_feedforward_layernorm"));
}

}  // namespace

Tensor gemma_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs*) {
  const std::string model = language_prefix(config) + "model.";
  Tensor x = embed_tokens(w[model + "embed_tokens.weight"], input_ids, std::sqrt(static_cast<double>(config.embedding_dim)));
  const auto layer = config.family == "gemma" ? layer_of_gemma1 : layer_between_norms;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const Scope scope(*x.builder, "layers." + std::to_string(i));
    x = layer(x, config, w, model + "layers." + std::to_string(i) + ".", i, tokens);
  }
  return scaled_rms_norm("final_norm", x, w[model + "norm.weight"], config.norm_epsilon, true);
}

}  // namespace mw
