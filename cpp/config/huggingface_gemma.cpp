// GemmaForCausalLM, Gemma2ForCausalLM, Gemma3ForCausalLM.
#include <cmath>

#include "base/error.h"
#include "config/huggingface_layers.h"
#include "config/huggingface_tables.h"

namespace mw {
namespace {

using nlohmann::json;

ModelConfig gemma_defaults() {
  ModelConfig c;
  c.num_kv_heads = 16;
  c.head_dim = 256;
  c.max_position_embeddings = 8192;
  c.activation = "gelu_tanh";
  c.norm_epsilon = 1e-6;
  c.tie_embeddings = true;
  c.pad_token_id = 0;
  c.eos_token_ids = {1};
  c.bos_token_id = 2;
  return c;
}

ModelConfig gemma2_defaults() {
  ModelConfig c = gemma_defaults();
  c.num_kv_heads = 4;
  c.attention_scale = 1.0 / 16.0;
  c.attention_logit_softcap = 50;
  c.final_logit_softcap = 30;
  c.attention_pattern.sliding_window = 4096;
  return c;
}

// The published files leave out what the class assumes, heads and vocabulary too.
ModelConfig gemma3_defaults() {
  ModelConfig c = gemma2_defaults();
  c.num_query_heads = 8;
  c.vocab_size = 262208;
  c.max_position_embeddings = 131072;
  c.attention_logit_softcap = c.final_logit_softcap = 0;
  c.rope.theta = 1e6;
  c.rope.local_theta = 1e4;
  c.qk_norm = QkNorm{};
  return c;
}

// query_pre_attn_scalar is 1 / scale^2. A scale of 1 / sqrt(head_dim) is no scale of its own.
void read_gemma2(ModelConfig& config, const json& object, const JsonPlace& place) {
  const json* given = present_json(object, "query_pre_attn_scalar");
  const double scalar = given ? json_number(*given, place.at("query_pre_attn_scalar"), 1e-6, 1e9) : 256.0;
  config.attention_scale.reset();
  if (scalar != static_cast<double>(config.head_dim)) config.attention_scale = 1.0 / std::sqrt(scalar);
  read_huggingface_window(config, object, place);
}

void write_gemma2(json& out, const ModelConfig& config) {
  const double scale = config.softmax_scale(), scalar = std::round(1.0 / (scale * scale));
  if (scalar < 1 || std::abs(scale * std::sqrt(scalar) - 1) > 1e-12) {
    throw UserError(concat_text("model '", config.name, "': attention_scale is ", scale, ", which ", config.hf_architecture,
                                " cannot express; its square is one over a whole number"));
  }
  out["query_pre_attn_scalar"] = static_cast<int64_t>(scalar);
  write_huggingface_window(out, config);
}

}  // namespace

std::vector<HuggingFaceTable> gemma_tables() {
  const std::map<std::string, json> always{{"use_bidirectional_attention", false}};
  const HuggingFaceFields caps_and_window{{"attn_logit_softcapping", "attention_logit_softcap"},
                                          {"final_logit_softcapping", "final_logit_softcap"},
                                          {"sliding_window", "attention_pattern.sliding_window"}};
  HuggingFaceFields gemma3 = decoder_keys(caps_and_window);
  gemma3["rope_local_base_freq"] = "rope.local_theta";
  return {
      {.family = "gemma", .fields = decoder_keys(), .defaults = gemma_defaults(), .read_together = {"hidden_activation"}, .always = always},
      {.family = "gemma2",
       .fields = decoder_keys(caps_and_window),
       .defaults = gemma2_defaults(),
       .activation_key = "hidden_activation",
       .read_together = {"hidden_act", "query_pre_attn_scalar", "layer_types"},
       .always = always,
       .read = read_gemma2,
       .write = write_gemma2},
      {.family = "gemma3",
       .fields = gemma3,
       .defaults = gemma3_defaults(),
       .required = {"hidden_size", "intermediate_size", "num_hidden_layers"},
       .activation_key = "hidden_activation",
       .read_together = {"hidden_act", "query_pre_attn_scalar", "layer_types", "sliding_window_pattern", "_sliding_window_pattern"},
       .always = always,
       .read = read_gemma2,
       .write = write_gemma2},
  };
}

}  // namespace mw
