#include "models/decoder.h"

#include "layers/embedding.h"
#include "layers/norm.h"
#include "models/named_weights.h"

namespace mw {

Tensor decoder_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens,
                      const FeedForward& feed_forward) {
  const std::string model = language_prefix(config) + "model.";
  Tensor x = embed_tokens(w[model + "embed_tokens.weight"], input_ids);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const Scope scope(*x.builder, "layers." + std::to_string(i));
    const std::string at = model + "layers." + std::to_string(i) + ".";
    const Tensor h = scaled_rms_norm("input_norm", x, w[at + "input_layernorm.weight"], config.norm_epsilon);
    x = residual_add("residual", x, self_attention(h, attention_weights(w, at + "self_attn."), attention_settings(config, i), tokens));
    const Tensor g = scaled_rms_norm("post_attention_norm", x, w[at + "post_attention_layernorm.weight"], config.norm_epsilon);
    x = residual_add("output", x, feed_forward(g, at, i));
  }
  return scaled_rms_norm("final_norm", x, w[model + "norm.weight"], config.norm_epsilon);
}

Tensor decoder_head(const ModelConfig& config, const ParameterSet& w) {
  return w[language_prefix(config) + (config.tie_embeddings ? "model.embed_tokens.weight" : "lm_head.weight")];
}

}  // namespace mw
