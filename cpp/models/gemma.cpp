#include "models/gemma.h"

#include "models/decoder_parameters.h"

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

}  // namespace mw
