#include "models/qwen3_moe.h"

#include "models/decoder.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

namespace mw {

std::vector<ParameterSpec> qwen3_moe_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    p.attention(at + "self_attn.");
    if (config.has_experts(i)) {
      p.experts(at + "mlp.experts.");
      p.projection(at + "mlp.gate", {p.num_experts}, {p.embed}, false);
    } else {
      p.gated_mlp(at + "mlp.", config.mlp_dim);
    }
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

Tensor qwen3_moe_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers) {
  return decoder_hidden(config, w, input_ids, tokens, [&](Tensor g, const std::string& at, int64_t layer) {
    const std::string mlp = at + "mlp.", experts = mlp + "experts.";
    if (!config.has_experts(layer)) return gated_mlp(g, gated_mlp_weights(w, mlp), config.activation);
    const MoeWeights weights{.router = w[mlp + "gate.weight"],
                             .gate = w[experts + "gate_proj.weight"],
                             .up = w[experts + "up_proj.weight"],
                             .down = w[experts + "down_proj.weight"]};
    return moe(g, weights, moe_settings(config), routers);
  });
}

}  // namespace mw
