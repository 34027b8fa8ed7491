#include "models/llama4.h"

#include "models/decoder.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

namespace mw {

std::vector<ParameterSpec> llama4_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  const Dim gate_up{"gate_up", 2};
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = p.prefix + "model.layers." + std::to_string(i) + ".", mlp = at + "feed_forward.";
    p.attention(at + "self_attn.");
    if (config.has_experts(i)) {
      p.specs.tensor(mlp + "experts.gate_up_proj", {{p.num_experts}, {p.embed}, {gate_up, p.expert_mlp}});
      p.specs.tensor(mlp + "experts.down_proj", {{p.num_experts}, {p.expert_mlp}, {p.embed}}, p.to_residual);
      p.projection(mlp + "router", {p.num_experts}, {p.embed}, false);
      p.gated_mlp(mlp + "shared_expert.", config.moe->shared_expert_mlp_dim);
    } else {
      p.gated_mlp(mlp, config.mlp_dim);
    }
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

Tensor llama4_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers) {
  return decoder_hidden(config, w, input_ids, tokens, [&](Tensor g, const std::string& at, int64_t layer) {
    const std::string mlp = at + "feed_forward.", experts = mlp + "experts.";
    if (!config.has_experts(layer)) return gated_mlp(g, gated_mlp_weights(w, mlp), config.activation);
    const MoeWeights weights{.router = w[mlp + "router.weight"],
                             .gate_up = w[experts + "gate_up_proj"],
                             .down = w[experts + "down_proj"],
                             .shared = gated_mlp_weights(w, mlp + "shared_expert.")};
    return moe(g, weights, moe_settings(config), routers);
  });
}

}  // namespace mw
