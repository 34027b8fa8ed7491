#include "models/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/registry.h"

namespace mw {
namespace {

class Checker {
 public:
  explicit Checker(const ModelConfig& config) : config_(config) {}

  template <typename... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) throw UserError("model '" + config_.name + "': " + concat_text(parts...));
  }

  void at_least_one(const char* field, int64_t value) const { require(value >= 1, field, " is ", value, "; expected 1 or more"); }

  void one_of(const char* field, const std::string& value, const std::vector<std::string>& choices) const {
    std::string listed;
    for (const std::string& choice : choices) listed += (listed.empty() ? "'" : ", '") + choice + "'";
    require(std::find(choices.begin(), choices.end(), value) != choices.end(), field, " is '", value, "'; expected one of ", listed,
            did_you_mean(value, choices));
  }

 private:
  const ModelConfig& config_;
};

void check_sizes(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  check.at_least_one("embedding_dim", c.embedding_dim);
  check.at_least_one("mlp_dim", c.mlp_dim);
  check.at_least_one("num_layers", c.num_layers);
  check.at_least_one("num_query_heads", c.num_query_heads);
  check.at_least_one("num_kv_heads", c.num_kv_heads);
  check.at_least_one("head_dim", c.head_dim);
  check.at_least_one("vocab_size", c.vocab_size);
  check.at_least_one("max_position_embeddings", c.max_position_embeddings);
  if (c.num_query_heads % c.num_kv_heads != 0) {
    const int64_t lower = c.num_query_heads / c.num_kv_heads * c.num_kv_heads;
    check.require(false, "num_kv_heads (", c.num_kv_heads, ") does not divide num_query_heads (", c.num_query_heads,
                  "); the nearest num_query_heads are ", lower > 0 ? std::to_string(lower) + " and " : "", lower + c.num_kv_heads);
  }
  check.require(c.head_dim % 2 == 0 || c.mla || !family.has_rope, "head_dim is ", c.head_dim,
                "; rope turns pairs, so it is even: ", c.head_dim - 1 > 0 ? std::to_string(c.head_dim - 1) + " or " : "", c.head_dim + 1);
  check.require(c.mtp_layers >= 0, "mtp_layers is ", c.mtp_layers, "; expected 0 or more");
  if (family.heads_fill_embedding) {
    check.require(c.num_query_heads * c.head_dim == c.embedding_dim, "embedding_dim is ", c.embedding_dim, ", but in ",
                  family.hf_architecture, " it is num_query_heads * head_dim = ", c.num_query_heads * c.head_dim);
    check.require(c.num_kv_heads == c.num_query_heads, "num_kv_heads is ", c.num_kv_heads, ", but in ", family.hf_architecture,
                  " it is num_query_heads (", c.num_query_heads, ")");
  }
}

void check_pattern(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  const AttentionPattern& p = c.attention_pattern;
  check.require(!p.layer_kinds.empty(), "attention_pattern.layer_kinds is empty; expected one kind per layer of its period");
  check.require(p.sliding_window >= 0, "attention_pattern.sliding_window is ", p.sliding_window, "; expected null or 1 or more");
  check.require(p.chunk_size >= 0, "attention_pattern.chunk_size is ", p.chunk_size, "; expected null or 1 or more");
  const auto has = [&](const char* kind) { return std::find(p.layer_kinds.begin(), p.layer_kinds.end(), kind) != p.layer_kinds.end(); };
  const auto can = [&](const char* kind) {
    return std::find(family.layer_kinds.begin(), family.layer_kinds.end(), kind) != family.layer_kinds.end();
  };
  check.require(can("sliding") || !(p.sliding_window > 0 || has("sliding")), "sliding_window is ", p.sliding_window, ", but the family '",
                c.family, "' has no window; use the family 'mistral'");
  for (const std::string& kind : p.layer_kinds) check.one_of("attention_pattern.layer_kinds", kind, family.layer_kinds);
  check.require(!family.one_layer_kind || std::equal(p.layer_kinds.begin() + 1, p.layer_kinds.end(), p.layer_kinds.begin()),
                "attention_pattern.layer_kinds mixes kinds, but all layers of ", family.hf_architecture, " are alike");
  check.require(has("sliding") == (p.sliding_window > 0), "attention_pattern has ", has("sliding") ? "sliding layers" : "no sliding layer",
                ", but sliding_window is ", p.sliding_window > 0 ? std::to_string(p.sliding_window) : "null");
  check.require(has("chunked") == (p.chunk_size > 0), "attention_pattern has ", has("chunked") ? "chunked layers" : "no chunked layer",
                ", but chunk_size is ", p.chunk_size > 0 ? std::to_string(p.chunk_size) : "null");
}

void check_rope(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  check.one_of("rope.scaling.kind", c.rope.scaling.kind, family.rope_scalings);
  check.one_of("rope.pair_layout_in_hf_weights", c.rope.pair_layout_in_hf_weights, {"half_split", "interleaved"});
  check.require(c.rope.theta > 1 && std::isfinite(c.rope.theta), "rope.theta is ", c.rope.theta,
                "; expected more than 1, usually 10000 to 1000000");
  check.require(!c.rope.local_theta || family.hf_model_type == "gemma3_text", "rope.local_theta is set, but the family '", c.family,
                "' has one theta for all layers");
  const RopeScaling& s = c.rope.scaling;
  if (s.kind == "none") return;
  check.require(s.factor >= 1 && std::isfinite(s.factor), "rope.scaling.factor is ", s.factor, "; expected 1 or more");
  if (s.kind == "linear") return;
  check.at_least_one("rope.scaling.original_max_position_embeddings", s.original_max_position_embeddings);
  if (s.kind == "yarn") {
    check.require(s.beta_fast > s.beta_slow && s.beta_slow > 0, "rope.scaling.beta_fast (", s.beta_fast, ") and beta_slow (", s.beta_slow,
                  "): expected beta_fast > beta_slow > 0");
    return;
  }
  check.require(s.low_frequency_factor > 0, "rope.scaling.low_frequency_factor is ", s.low_frequency_factor, "; expected more than 0");
  // Equal ones (Llama 4 Scout) leave no frequencies between.
  check.require(s.high_frequency_factor >= s.low_frequency_factor, "rope.scaling.high_frequency_factor (", s.high_frequency_factor,
                ") is below low_frequency_factor (", s.low_frequency_factor, ")");
}

void check_choices(const ModelConfig& c, const Checker& check) {
  check.one_of("activation", c.activation, {"silu", "gelu_tanh", "gelu_erf", "relu", "clamped_swiglu"});
  check.require(c.norm_epsilon > 0 && c.norm_epsilon < 1, "norm_epsilon is ", c.norm_epsilon, "; expected more than 0 and less than 1");
  check.require(!c.attention_scale || (*c.attention_scale > 0 && std::isfinite(*c.attention_scale)),
                "attention_scale is not more than 0; null means 1/sqrt(head_dim)");
  for (const double cap : {c.attention_logit_softcap, c.final_logit_softcap})
    check.require(cap >= 0 && std::isfinite(cap), "a softcap is ", cap, "; expected null or more than 0");
}

template <typename T>
std::string json_like(const T& value) {
  if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
  return concat_text(value);
}

// Of the router, what the family's class always does.
void check_router(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  const MoeConfig &m = *c.moe, &always = family.router;
  const auto fixed = [&](const char* choice, const char* field, const auto& value, const auto& expected) {
    const auto& free = family.router_choices;
    check.require(value == expected || std::find(free.begin(), free.end(), choice) != free.end(), "moe.", field, " is ", json_like(value),
                  ", but ", family.hf_architecture, " always has ", json_like(expected));
  };
  fixed("shared_experts", "num_shared_experts", m.num_shared_experts, always.num_shared_experts);
  fixed("first_dense_layers", "first_dense_layers", m.first_dense_layers, always.first_dense_layers);
  fixed("moe_layer_step", "moe_layer_step", m.moe_layer_step, always.moe_layer_step);
  fixed("routing_score", "routing_score", m.routing_score, always.routing_score);
  fixed("routing_selection_bias", "routing_selection_bias", m.routing_selection_bias, always.routing_selection_bias);
  fixed("normalize_topk_weights", "normalize_topk_weights", m.normalize_topk_weights, always.normalize_topk_weights);
  fixed("routed_scaling_factor", "routed_scaling_factor", m.routed_scaling_factor, always.routed_scaling_factor);
  fixed("groups", "num_expert_groups", m.num_expert_groups, always.num_expert_groups);
  fixed("group_score", "group_score", m.group_score, always.group_score);
  fixed("weight_applied_to", "weight_applied_to", m.weight_applied_to, always.weight_applied_to);
  check.require(!family.one_mlp_width || c.mlp_dim == c.moe_mlp_dim, "mlp_dim is ", c.mlp_dim, " and moe_mlp_dim ", c.moe_mlp_dim, ", but ",
                family.hf_architecture, " has one size for both");
  check.require(m.shared_expert_mlp_dim == m.num_shared_experts * c.moe_mlp_dim, "moe.shared_expert_mlp_dim is ", m.shared_expert_mlp_dim,
                ", but ", family.hf_architecture, " has num_shared_experts * moe_mlp_dim = ", m.num_shared_experts * c.moe_mlp_dim);
  check.require(!family.has_mla || m.num_shared_experts > 0, "moe.num_shared_experts is 0, but ", family.hf_architecture, " has 1 or more");
}

void check_experts(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  check.require(family.has_experts == c.moe.has_value(), "moe is ", c.moe ? "set" : "null", ", but the family '", c.family, "' ",
                family.has_experts ? "always" : "never", " has experts");
  if (!c.moe) return;
  const MoeConfig& m = *c.moe;
  check.at_least_one("moe_mlp_dim", c.moe_mlp_dim);
  check.at_least_one("moe.num_experts", m.num_experts);
  check.require(m.experts_per_token >= 1 && m.experts_per_token <= m.num_experts, "moe.experts_per_token is ", m.experts_per_token,
                "; expected 1 to num_experts (", m.num_experts, ")");
  check.require(m.num_shared_experts >= 0 && m.shared_expert_mlp_dim >= 0 && (m.num_shared_experts > 0) == (m.shared_expert_mlp_dim > 0),
                "moe.num_shared_experts (", m.num_shared_experts, ") and moe.shared_expert_mlp_dim (", m.shared_expert_mlp_dim,
                ") are both 0 or both more");
  check.at_least_one("moe.moe_layer_step", m.moe_layer_step);
  check.require(m.first_dense_layers >= 0 && m.first_dense_layers <= c.num_layers, "moe.first_dense_layers is ", m.first_dense_layers,
                "; expected 0 to num_layers (", c.num_layers, ")");
  check.one_of("moe.routing_score", m.routing_score, {"softmax", "sigmoid", "softmax_of_top_k"});
  check.one_of("moe.group_score", m.group_score, {"max", "top2_sum"});
  check.one_of("moe.weight_applied_to", m.weight_applied_to, {"expert output", "expert input"});
  check.at_least_one("moe.num_expert_groups", m.num_expert_groups);
  check.require(m.num_experts % m.num_expert_groups == 0, "moe.num_expert_groups (", m.num_expert_groups,
                ") does not divide moe.num_experts (", m.num_experts, ")");
  check.require(m.groups_selected >= 1 && m.groups_selected <= m.num_expert_groups, "moe.groups_selected is ", m.groups_selected,
                "; expected 1 to num_expert_groups (", m.num_expert_groups, ")");
  check.require(m.experts_per_token <= m.num_experts / m.num_expert_groups * m.groups_selected, "moe.experts_per_token is ",
                m.experts_per_token, ", but the selected groups have ", m.num_experts / m.num_expert_groups * m.groups_selected,
                " experts");
  check.require(m.group_score != "top2_sum" || m.num_experts / m.num_expert_groups >= 2, "moe.num_expert_groups is ", m.num_expert_groups,
                "; groups scored by their two best have 2 experts or more");
  check_router(c, family, check);
}

void check_latent_attention(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  check.require(family.has_mla == c.mla.has_value(), "mla is ", c.mla ? "set" : "null", ", but the family '", c.family, "' ",
                family.has_mla ? "always" : "never", " has it");
  if (!c.mla) return;
  check.require(c.mla->q_lora_rank >= 0, "mla.q_lora_rank is ", c.mla->q_lora_rank, "; expected null or 1 or more");
  check.at_least_one("mla.kv_lora_rank", c.mla->kv_lora_rank);
  check.at_least_one("mla.qk_nope_head_dim", c.mla->qk_nope_head_dim);
  check.at_least_one("mla.v_head_dim", c.mla->v_head_dim);
  check.require(c.mla->qk_rope_head_dim >= 2 && c.mla->qk_rope_head_dim % 2 == 0, "mla.qk_rope_head_dim is ", c.mla->qk_rope_head_dim,
                "; rope turns pairs, so it is even and at least 2");
  check.require(c.head_dim == c.mla->qk_nope_head_dim + c.mla->qk_rope_head_dim, "head_dim is ", c.head_dim,
                "; with mla it is qk_nope_head_dim + qk_rope_head_dim = ", c.mla->qk_nope_head_dim + c.mla->qk_rope_head_dim);
  check.require(c.num_kv_heads == c.num_query_heads, "num_kv_heads is ", c.num_kv_heads, "; with mla it is num_query_heads (",
                c.num_query_heads, ")");
}

void check_vision(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  if (!c.vision) return;
  const VisionConfig& v = *c.vision;
  check.require(!family.hf_multimodal_architecture.empty(), "vision is set, but the family '", c.family, "' has no image encoder");
  const std::string kind = c.family == "gemma3" ? "siglip" : "llama4";
  check.require(v.kind == kind, "vision.kind is '", v.kind, "', but the family '", c.family, "' has '", kind, "'");
  for (const int64_t size :
       {v.image_size, v.patch_size, v.channels, v.hidden_dim, v.mlp_dim, v.num_layers, v.num_heads, v.tokens_per_image})
    check.require(size >= 1, "a size of vision is ", size, "; expected 1 or more");
  const int64_t side = v.image_size / v.patch_size;
  check.require(v.image_size % v.patch_size == 0, "vision.patch_size (", v.patch_size, ") does not divide vision.image_size (",
                v.image_size, "); the nearest image_size is ", std::max<int64_t>(1, side) * v.patch_size);
  if (kind != "llama4") return;
  check.at_least_one("vision.projector_input_dim", v.projector_input_dim);
  check.at_least_one("vision.projector_output_dim", v.projector_output_dim);
  check.require(side % 2 == 0 && v.tokens_per_image == side * side / 4, "vision.tokens_per_image is ", v.tokens_per_image, "; an image of ",
                side, " x ", side, " patches has a token for each 2 x 2 of them");
}

// What a family's class in transformers can express; anything else could be trained but not saved.
void check_family(const ModelConfig& c, const ModelFamily& family, const Checker& check) {
  const bool has_norm = !family.qk_norm.empty();
  check.require(family.qk_norm_optional || has_norm == c.qk_norm.has_value(), "qk_norm is ", c.qk_norm ? "set" : "null",
                ", but the family '", c.family, "' ", has_norm ? "always" : "never", " has it",
                c.family == "qwen3" ? "; use the family 'llama'"
                : has_norm          ? ""
                                    : "; use the family 'qwen3'");
  check.require(!c.qk_norm || c.qk_norm->kind == family.qk_norm, "qk_norm.kind is '", c.qk_norm ? c.qk_norm->kind : "",
                "', but the family '", c.family, "' has '", family.qk_norm, "'");
  check.require(!c.qk_norm || c.qk_norm->epsilon == c.norm_epsilon, "qk_norm.epsilon differs from norm_epsilon; ", family.hf_architecture,
                " has one epsilon for all norms");
  if (family.always_biased) {
    check.require(c.bias.qkv && c.bias.attention_output && c.bias.mlp, "a field of bias is false, but ", family.hf_architecture,
                  " has biases everywhere");
  } else {
    check.require(family.has_attention_bias || !(c.bias.qkv || c.bias.attention_output),
                  "bias.qkv or bias.attention_output is true, but the family '", c.family,
                  "' has no bias in attention; use the family 'llama'");
    check.require(c.bias.qkv == c.bias.attention_output, "bias.qkv and bias.attention_output differ, but ", family.hf_architecture,
                  " has one attention_bias for both");
    check.require(family.has_mlp_bias || !c.bias.mlp, "bias.mlp is true, but the family '", c.family,
                  "' has no bias in the mlp; use the family 'llama'");
  }
  check.require(!family.heads_divide_embedding || c.embedding_dim % c.num_query_heads == 0, "num_query_heads (", c.num_query_heads,
                ") does not divide embedding_dim (", c.embedding_dim, "), which ", family.hf_architecture,
                " demands whatever head_dim is; the nearest embedding_dim is ",
                std::max<int64_t>(1, (c.embedding_dim + c.num_query_heads / 2) / c.num_query_heads) * c.num_query_heads);
  check.require(c.rope.pair_layout_in_hf_weights == family.pair_layout, "rope.pair_layout_in_hf_weights is '",
                c.rope.pair_layout_in_hf_weights, "', but ", family.hf_architecture, " pairs ",
                family.pair_layout == "half_split" ? "halves" : "neighbours", ": '", family.pair_layout, "'");
  check.require(family.has_softcaps || (c.attention_logit_softcap == 0 && c.final_logit_softcap == 0), "a softcap is set, but the family '",
                c.family, "' has none; use the family 'gemma2'");
  check.require((c.activation == "clamped_swiglu") == (family.name == "gpt_oss"), "activation is '", c.activation, "', but the family '",
                c.family, "' ", family.name == "gpt_oss" ? "always" : "never", " has 'clamped_swiglu'");
  check.require(family.has_mtp || c.mtp_layers == 0, "mtp_layers is ", c.mtp_layers, ", but the family '", c.family,
                "' has no multi-token prediction");
  check.require(family.has_temperature_tuning || !c.temperature_tuning, "temperature_tuning is set, but the family '", c.family,
                "' does not have it");
  const std::string& architecture = c.vision ? family.hf_multimodal_architecture : family.hf_architecture;
  const std::string& model_type = c.vision ? family.hf_multimodal_model_type : family.hf_model_type;
  check.require(c.hf_architecture == architecture, "hf_architecture is '", c.hf_architecture, "', but the family '", c.family, "' is '",
                architecture, "'");
  check.require(c.hf_model_type == model_type, "hf_model_type is '", c.hf_model_type, "', but the family '", c.family, "' is '", model_type,
                "'");
}

}  // namespace

// transformers folds yarn's factor for the whole head into the scale of the scores (DeepSeek V2 and V3), squared.
double ModelConfig::softmax_scale() const {
  double scale = attention_scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim)));
  if (mla && rope.scaling.kind == "yarn" && rope.scaling.mscale_all_dim != 0 && rope.scaling.factor > 1) {
    const double mscale = 0.1 * rope.scaling.mscale_all_dim * std::log(rope.scaling.factor) + 1.0;
    scale *= mscale * mscale;
  }
  return scale;
}

const std::string& ModelConfig::layer_kind(int64_t layer) const {
  return attention_pattern.layer_kinds[static_cast<size_t>(layer) % attention_pattern.layer_kinds.size()];
}

bool ModelConfig::has_experts(int64_t layer) const {
  return moe && layer >= moe->first_dense_layers && (layer + 1) % moe->moe_layer_step == 0;
}

void check_model_config(ModelConfig& config) {
  const ModelFamily& family = model_family(config.family);
  if (config.hf_architecture.empty()) config.hf_architecture = config.vision ? family.hf_multimodal_architecture : family.hf_architecture;
  if (config.hf_model_type.empty()) config.hf_model_type = config.vision ? family.hf_multimodal_model_type : family.hf_model_type;
  const Checker check(config);
  check_sizes(config, family, check);
  check_choices(config, check);
  check_pattern(config, family, check);
  check_rope(config, family, check);
  check_latent_attention(config, family, check);
  check_experts(config, family, check);
  check_vision(config, family, check);
  check_family(config, family, check);
}

}  // namespace mw
