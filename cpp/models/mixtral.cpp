#include "models/mixtral.h"

#include "models/decoder.h"
#include "models/decoder_parameters.h"
#include "models/named_weights.h"

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

Tensor mixtral_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers) {
  return decoder_hidden(config, w, input_ids, tokens, [&](Tensor g, const std::string& at, int64_t) {
    const std::string block = at + "block_sparse_moe.", experts = block + "experts.";
    const MoeWeights weights{.router = w[block + "gate.weight"],
                             .gate = w[experts + "w1.weight"],
                             .up = w[experts + "w3.weight"],
                             .down = w[experts + "w2.weight"]};
    return moe(g, weights, moe_settings(config), routers);
  });
}

}  // namespace mw
