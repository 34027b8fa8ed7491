#include "models/llama.h"

#include "models/decoder.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

namespace mw {

Tensor llama_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs*) {
  return decoder_hidden(config, w, input_ids, tokens, [&](Tensor g, const std::string& at, int64_t) {
    return gated_mlp(g, gated_mlp_weights(w, at + "mlp."), config.activation);
  });
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
