#include "models/qwen3_moe.h"

#include "models/decoder_parameters.h"

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

}  // namespace mw
