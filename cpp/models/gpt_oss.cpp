#include "models/gpt_oss.h"

#include "models/decoder.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

namespace mw {

std::vector<ParameterSpec> gpt_oss_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  const Dim gate_up{"gate_up", 2};
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".", experts = at + "mlp.experts.";
    p.specs.vector(at + "self_attn.sinks", {p.kv_heads, p.q_per_kv}, Initial::kNormal);
    p.attention(at + "self_attn.");
    p.specs.matrix(at + "mlp.router.weight", {p.num_experts}, {p.embed});
    p.specs.vector(at + "mlp.router.bias", {p.num_experts}, Initial::kNormal);
    const auto bias = [&](const std::string& name, const std::vector<Dim>& out) {
      ParameterSpec& spec = p.specs.matrix(name, {p.num_experts}, out);
      spec.initial = Initial::kZeros;
      spec.is_bias = true;
    };
    p.specs.tensor(experts + "gate_up_proj", {{p.num_experts}, {p.embed}, {p.expert_mlp, gate_up}});
    bias(experts + "gate_up_proj_bias", {p.expert_mlp, gate_up});
    p.specs.tensor(experts + "down_proj", {{p.num_experts}, {p.expert_mlp}, {p.embed}}, p.to_residual);
    bias(experts + "down_proj_bias", {p.embed});
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

Tensor gpt_oss_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers) {
  return decoder_hidden(config, w, input_ids, tokens, [&](Tensor g, const std::string& at, int64_t) {
    const std::string mlp = at + "mlp.", experts = mlp + "experts.";
    const MoeWeights weights{.router = w[mlp + "router.weight"],
                             .router_bias = w[mlp + "router.bias"],
                             .gate_up = w[experts + "gate_up_proj"],
                             .down = w[experts + "down_proj"],
                             .gate_up_bias = w[experts + "gate_up_proj_bias"],
                             .down_bias = w[experts + "down_proj_bias"]};
    return moe(g, weights, moe_settings(config), routers);
  });
}

}  // namespace mw
