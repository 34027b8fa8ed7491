#include "models/named_weights.h"

namespace mw {

AttentionWeights attention_weights(const ParameterSet& w, const std::string& at) {
  return {.query = w[at + "q_proj.weight"],
          .key = w[at + "k_proj.weight"],
          .value = w[at + "v_proj.weight"],
          .out = w[at + "o_proj.weight"],
          .query_bias = w.find(at + "q_proj.bias"),
          .key_bias = w.find(at + "k_proj.bias"),
          .value_bias = w.find(at + "v_proj.bias"),
          .out_bias = w.find(at + "o_proj.bias"),
          .query_norm = w.find(at + "q_norm.weight"),
          .key_norm = w.find(at + "k_norm.weight"),
          .sinks = w.find(at + "sinks")};
}

GatedMlpWeights gated_mlp_weights(const ParameterSet& w, const std::string& at) {
  return {.gate = w[at + "gate_proj.weight"],
          .up = w[at + "up_proj.weight"],
          .down = w[at + "down_proj.weight"],
          .gate_bias = w.find(at + "gate_proj.bias"),
          .up_bias = w.find(at + "up_proj.bias"),
          .down_bias = w.find(at + "down_proj.bias")};
}

RopeAttributes rope_attributes(const ModelConfig& config, bool local) {
  const RopeScaling& scaling = config.rope.scaling;
  RopeAttributes rope{.theta = config.rope.theta,
                      .pairing = config.rope.pair_layout_in_hf_weights == "interleaved" ? "interleaved" : "half"};
  if (local) {
    rope.theta = *config.rope.local_theta;
    return rope;
  }
  rope.scaling = scaling.kind;
  rope.factor = scaling.factor;
  rope.low_freq_factor = scaling.low_frequency_factor;
  rope.high_freq_factor = scaling.high_frequency_factor;
  rope.original_positions = scaling.original_max_position_embeddings;
  rope.beta_fast = scaling.beta_fast;
  rope.beta_slow = scaling.beta_slow;
  rope.truncate = scaling.truncate;
  if (scaling.kind == "yarn") {
    rope.attention_factor =
        scaling.attention_factor.value_or(yarn_attention_factor(scaling.factor, scaling.mscale, scaling.mscale_all_dim));
  }
  return rope;
}

AttentionSettings attention_settings(const ModelConfig& config, int64_t layer) {
  const std::string& kind = config.layer_kind(layer);
  AttentionSettings settings{.scale = config.softmax_scale()};
  settings.window = kind == "sliding" ? config.attention_pattern.sliding_window : 0;
  settings.chunk = kind == "chunked" ? config.attention_pattern.chunk_size : 0;
  settings.softcap = config.attention_logit_softcap;
  settings.norm_epsilon = config.norm_epsilon;
  if (kind == "global_without_rope") {
    if (config.temperature_tuning)
      settings.temperature = TemperatureTuning{config.temperature_tuning->floor_scale, config.temperature_tuning->scale};
    return settings;
  }
  settings.rope = rope_attributes(config, kind == "sliding" && config.rope.local_theta);
  if (config.qk_norm && config.qk_norm->kind == "l2") settings.l2_norm_epsilon = config.qk_norm->epsilon;
  return settings;
}

MoeSettings moe_settings(const ModelConfig& config) {
  const MoeConfig& m = *config.moe;
  return {.route = {.score = m.routing_score,
                    .k = m.experts_per_token,
                    .groups = m.num_expert_groups,
                    .groups_selected = m.groups_selected,
                    .group_score = m.group_score,
                    .normalize = m.normalize_topk_weights,
                    .scaling = m.routed_scaling_factor},
          .scale_input = m.weight_applied_to == "expert input",
          .activation = config.activation,
          .clamped = {config.activation_clamp_limit, config.activation_alpha}};
}

std::string language_prefix(const ModelConfig& config) { return config.vision ? "language_model." : ""; }

}  // namespace mw
