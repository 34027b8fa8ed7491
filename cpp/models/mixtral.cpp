#include "models/mixtral.h"

#include "models/decoder_parameters.h"

namespace mw {

std::vector<ParameterSpec> mixtral_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  p.embedding();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "model.layers." + std::to_string(i) + ".";
    p.attention(at + "self_attn.");
    p.projection(at + "block_sparse_moe.gate", {p.num_experts}, {p.embed}, false);
    p.experts(at + "block_sparse_moe.experts.", {.gate = "w1", .up = "w3", .down = "w2"});
    p.norm(at + "input_layernorm", p.embed);
    p.norm(at + "post_attention_layernorm", p.embed);
  }
  p.final_norm();
  p.head();
  return std::move(p.specs.list);
}

}  // namespace mw
