// Llama and its kin: LlamaForCausalLM, MistralForCausalLM, Qwen3ForCausalLM, MixtralForCausalLM, Qwen3MoeForCausalLM, Llama4ForCausalLM.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "config/huggingface_layers.h"
#include "config/huggingface_tables.h"
#include "config/model_config_json.h"

namespace mw {
namespace {

using nlohmann::json;

ModelConfig llama_defaults() {
  ModelConfig c;
  c.max_position_embeddings = 2048;
  c.norm_epsilon = 1e-6;
  c.bos_token_id = 1;
  c.eos_token_ids = {2};
  return c;
}

ModelConfig mistral_defaults() {
  ModelConfig c = llama_defaults();
  c.num_kv_heads = 8;
  c.max_position_embeddings = 131072;
  c.attention_pattern.sliding_window = 4096;
  return c;
}

ModelConfig qwen3_defaults() {
  ModelConfig c;
  c.num_kv_heads = 32;
  c.head_dim = 128;
  c.max_position_embeddings = 32768;
  c.norm_epsilon = 1e-6;
  c.qk_norm = QkNorm{};
  c.attention_pattern.sliding_window = 4096;
  return c;
}

ModelConfig mixtral_defaults() {
  ModelConfig c = mistral_defaults();
  c.norm_epsilon = 1e-5;
  c.rope.theta = 1e6;
  c.attention_pattern.sliding_window = 0;
  c.moe = MoeConfig{.num_experts = 8, .experts_per_token = 2, .normalize_topk_weights = true, .load_balance_loss_weight = 0.001};
  return c;
}

ModelConfig qwen3_moe_defaults() {
  ModelConfig c = qwen3_defaults();
  c.num_kv_heads = 4;
  c.head_dim = 0;
  c.moe_mlp_dim = 768;
  c.moe = MoeConfig{.num_experts = 128, .experts_per_token = 8, .load_balance_loss_weight = 0.001};
  return c;
}

ModelConfig llama4_defaults() {
  ModelConfig c = llama_defaults();
  c.mlp_dim = 16384;
  c.num_kv_heads = 8;
  c.head_dim = 128;
  c.max_position_embeddings = 131072;
  c.norm_epsilon = 1e-5;
  c.rope.theta = 5e5;
  c.rope.pair_layout_in_hf_weights = "interleaved";
  c.qk_norm = QkNorm{.kind = "l2"};
  c.attention_pattern.chunk_size = 8192;
  c.temperature_tuning = TemperatureConfig{};
  c.moe = MoeConfig{.num_experts = 16,
                    .experts_per_token = 1,
                    .num_shared_experts = 1,
                    .routing_score = "sigmoid",
                    .weight_applied_to = "expert input",
                    .load_balance_loss_weight = 0.001};
  return c;
}

void write_balance_loss(json& out, const ModelConfig& config) {
  out["router_aux_loss_coef"] = config.moe->load_balance_loss_weight;
  out["output_router_logits"] = config.moe->output_router_logits;
}

void write_mistral(json& out, const ModelConfig& config) {
  write_huggingface_window(out, config);
  if (config.moe) write_balance_loss(out, config);
}

void write_qwen3_moe(json& out, const ModelConfig& config) {
  write_mistral(out, config);
  out["num_local_experts"] = config.moe->num_experts;  // transformers 5; num_experts is 4's
  out["mlp_only_layers"] = json::array();
}

// Layers s - 1, 2 s - 1 ... of moe_layers say the step s; none at all, a step beyond the last layer.
int64_t read_moe_step(const json& layers, int64_t num_layers, const JsonPlace& place) {
  if (!layers.is_array()) refuse_json(place, "a list of the layers that have experts", layers);
  const int64_t step = layers.empty() ? num_layers + 1 : json_integer(layers[0], place.at("0"), 0, num_layers - 1) + 1;
  json expected = json::array();
  for (int64_t i = step - 1; i < num_layers; i += step) expected.push_back(i);
  if (layers != expected) refuse_json(place, concat_text("every ", step, ". layer, ", expected.dump()), layers);
  return step;
}

void read_llama4(ModelConfig& config, const json& object, const JsonPlace& place) {
  config.moe->shared_expert_mlp_dim = config.moe_mlp_dim;
  if (const json* layers = present_json(object, "moe_layers"))
    config.moe->moe_layer_step = read_moe_step(*layers, config.num_layers, place.at("moe_layers"));
  if (const json* norm = present_json(object, "use_qk_norm"); norm && !json_flag(*norm, place.at("use_qk_norm"))) config.qk_norm.reset();
  if (const json* tuning = present_json(object, "attn_temperature_tuning")) {
    // Early files have a number.
    const JsonPlace at = place.at("attn_temperature_tuning");
    const bool tuned = tuning->is_number() ? json_integer(*tuning, at, 0, 1 << 20) != 0 : json_flag(*tuning, at);
    if (!tuned) config.temperature_tuning.reset();
  }
  read_huggingface_chunks(config, object, place);
}

void write_llama4(json& out, const ModelConfig& config) {
  write_huggingface_chunks(out, config);
  write_balance_loss(out, config);
  json layers = json::array();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    if (config.has_experts(i)) layers.push_back(i);
  }
  out["moe_layers"] = layers;
  out["use_qk_norm"] = config.qk_norm.has_value();
  out["attn_temperature_tuning"] = config.temperature_tuning.has_value();
  if (config.temperature_tuning) {
    const double floor_scale = config.temperature_tuning->floor_scale;
    if (floor_scale != std::floor(floor_scale)) {
      throw UserError(concat_text("model '", config.name, "': temperature_tuning.floor_scale is ", floor_scale, ", but ",
                                  config.hf_architecture, " has a whole number"));
    }
    out["floor_scale"] = static_cast<int64_t>(floor_scale);
    out["attn_scale"] = config.temperature_tuning->scale;
  }
}

}  // namespace

std::vector<HuggingFaceTable> llama_tables() {
  const HuggingFaceFields experts{{"num_experts_per_tok", "moe.experts_per_token"},
                                  {"router_aux_loss_coef", "moe.load_balance_loss_weight"},
                                  {"output_router_logits", "moe.output_router_logits"}};
  const HuggingFaceFields window{{"sliding_window", "attention_pattern.sliding_window"}};
  const std::vector<std::string> window_keys{"layer_types", "use_sliding_window", "max_window_layers"};
  const auto with = [&](HuggingFaceFields fields, const HuggingFaceFields& more = {}) {
    fields.insert(more.begin(), more.end());
    return fields;
  };
  return {
      {.family = "llama",
       .fields = decoder_keys({{"mlp_bias", "bias.mlp"}}),
       .aliases = window,
       .defaults = llama_defaults(),
       .read_together = window_keys,
       .read = read_huggingface_window},
      {.family = "mistral",
       .fields = decoder_keys(window),
       .defaults = mistral_defaults(),
       .read_together = window_keys,
       .read = read_huggingface_window,
       .write = write_mistral},
      {.family = "qwen3",
       .fields = decoder_keys(window),
       .defaults = qwen3_defaults(),
       .read_together = window_keys,
       .read = read_huggingface_window,
       .write = write_mistral},
      {.family = "mixtral",
       .fields = decoder_keys(with(experts, {{"intermediate_size", "moe_mlp_dim"},
                                             {"num_local_experts", "moe.num_experts"},
                                             {"sliding_window", "attention_pattern.sliding_window"}})),
       .aliases = {{"num_experts", "moe.num_experts"}},
       .defaults = mixtral_defaults(),
       .always = {{"router_jitter_noise", 0}},
       .read = read_huggingface_window,
       .write = write_mistral},
      {.family = "qwen3_moe",
       .fields = decoder_keys(with(experts, {{"moe_intermediate_size", "moe_mlp_dim"},
                                             {"num_experts", "moe.num_experts"},
                                             {"norm_topk_prob", "moe.normalize_topk_weights"},
                                             {"decoder_sparse_step", "moe.moe_layer_step"},
                                             {"sliding_window", "attention_pattern.sliding_window"}})),
       .aliases = {{"num_local_experts", "moe.num_experts"}},
       .defaults = qwen3_moe_defaults(),
       .read_together = window_keys,
       .always = {{"mlp_only_layers", json::array()}, {"shared_expert_intermediate_size", 0}, {"qkv_bias", false}, {"use_qk_norm", true}},
       .read = read_huggingface_window,
       .write = write_qwen3_moe},
      {.family = "llama4",
       .fields = decoder_keys(with(experts, {{"intermediate_size", "moe_mlp_dim"},
                                             {"intermediate_size_mlp", "mlp_dim"},
                                             {"num_local_experts", "moe.num_experts"},
                                             {"interleave_moe_layer_step", "moe.moe_layer_step"},
                                             {"floor_scale", "temperature_tuning.floor_scale"},
                                             {"attn_scale", "temperature_tuning.scale"}})),
       .aliases = {{"num_experts", "moe.num_experts"}, {"attention_chunk_size", "attention_pattern.chunk_size"}},
       .defaults = llama4_defaults(),
       .read_together = {"layer_types", "no_rope_layers", "no_rope_layer_interval", "moe_layers", "use_qk_norm", "attn_temperature_tuning"},
       .always = {{"router_jitter_noise", 0}},
       .read = read_llama4,
       .write = write_llama4},
  };
}

}  // namespace mw
