#include "models/gpt3.h"

#include "layers/embedding.h"
#include "layers/mlp.h"
#include "layers/norm.h"
#include "models/decoder_parameters.h"

namespace mw {

std::vector<ParameterSpec> gpt3_parameters(const ModelConfig& config, DType dtype) {
  DecoderParameters p(config, dtype);
  SpecList& specs = p.specs;
  const Dim qkv{"qkv", 3}, mlp{"mlp", config.mlp_dim}, positions{"positions", config.max_position_embeddings};
  const auto layer_norm = [&](const std::string& name) {
    specs.vector(name + ".weight", {p.embed}, Initial::kOnes);
    specs.vector(name + ".bias", {p.embed}, Initial::kZeros);
  };
  const auto projection = [&](const std::string& name, const std::vector<Dim>& in, const std::vector<Dim>& out, double deviation = 0.02) {
    specs.matrix(name + ".weight", in, out, deviation);
    specs.vector(name + ".bias", out, Initial::kZeros);
  };
  ParameterSpec& table = specs.matrix("transformer.wte.weight", {p.vocab}, {p.embed});
  table.is_embedding = true;
  if (config.tie_embeddings) table.copies = {{"lm_head.weight"}};
  specs.matrix("transformer.wpe.weight", {positions}, {p.embed}).is_embedding = true;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string at = "transformer.h." + std::to_string(i) + ".";
    layer_norm(at + "ln_1");
    projection(at + "attn.c_attn", {p.embed}, {qkv, p.kv_heads, p.head_dim});
    projection(at + "attn.c_proj", {p.kv_heads, p.head_dim}, {p.embed}, p.to_residual);
    layer_norm(at + "ln_2");
    projection(at + "mlp.c_fc", {p.embed}, {mlp});
    projection(at + "mlp.c_proj", {mlp}, {p.embed}, p.to_residual);
  }
  layer_norm("transformer.ln_f");
  if (!config.tie_embeddings) specs.matrix("lm_head.weight", {p.vocab}, {p.embed});
  return std::move(specs.list);
}

Tensor gpt3_hidden(const ModelConfig& config, const ParameterSet& w, Tensor input_ids, const Tokens& tokens, RouterOutputs*) {
  const auto norm = [&](const char* scope, Tensor x, const std::string& name) {
    return scaled_layer_norm(scope, x, w[name + ".weight"], w[name + ".bias"], config.norm_epsilon);
  };
  Tensor x = embed_tokens(w["transformer.wte.weight"], input_ids);
  x = residual_add("embedding", x, embed_positions(w["transformer.wpe.weight"], tokens.positions));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const Scope scope(*x.builder, "layers." + std::to_string(i));
    const std::string at = "transformer.h." + std::to_string(i) + ".";
    const FusedAttentionWeights attention{.qkv = w[at + "attn.c_attn.weight"],
                                          .qkv_bias = w[at + "attn.c_attn.bias"],
                                          .out = w[at + "attn.c_proj.weight"],
                                          .out_bias = w[at + "attn.c_proj.bias"]};
    const MlpWeights feed_forward{.up = w[at + "mlp.c_fc.weight"],
                                  .down = w[at + "mlp.c_proj.weight"],
                                  .up_bias = w[at + "mlp.c_fc.bias"],
                                  .down_bias = w[at + "mlp.c_proj.bias"]};
    const Tensor h = norm("input_norm", x, at + "ln_1");
    x = residual_add("residual", x, self_attention(h, attention, {.scale = config.softmax_scale()}, tokens));
    x = residual_add("output", x, mlp(norm("post_attention_norm", x, at + "ln_2"), feed_forward, config.activation));
  }
  return norm("final_norm", x, "transformer.ln_f");
}

Tensor gpt3_head(const ModelConfig& config, const ParameterSet& w) {
  return w[config.tie_embeddings ? "transformer.wte.weight" : "lm_head.weight"];
}

}  // namespace mw
