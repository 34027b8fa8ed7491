#include "config/model_config_json.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "config/huggingface_config.h"
#include "config/json_fields.h"
#include "models/registry.h"

namespace mw {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int64_t kMostSize = int64_t{1} << 24, kMostPositions = int64_t{1} << 31, kMostTokenId = int64_t{1} << 31;
constexpr int64_t kMostLayers = 10000, kMostHeads = 65536;

// null is `none`.
template <typename T>
Field<T> optional_number_field(std::string name, std::optional<double> T::* member, double least, double most) {
  return {.name = std::move(name),
          .read =
              [=](T& t, const json& value, const JsonPlace& place) {
                t.*member = value.is_null() ? std::nullopt : std::optional(json_number(value, place, least, most));
              },
          .write = [=](const T& t) { return t.*member ? ordered_json(*(t.*member)) : ordered_json(nullptr); }};
}

// null is 0.
template <typename T>
Field<T> nullable_number_field(std::string name, double T::* member, double most) {
  return {.name = std::move(name),
          .read = [=](T& t, const json& value,
                      const JsonPlace& place) { t.*member = value.is_null() ? 0 : json_number(value, place, 0, most); },
          .write = [=](const T& t) { return t.*member != 0 ? ordered_json(t.*member) : ordered_json(nullptr); }};
}

template <typename T>
Field<T> nullable_integer_field(std::string name, int64_t T::* member, int64_t most) {
  return {.name = std::move(name),
          .read = [=](T& t, const json& value,
                      const JsonPlace& place) { t.*member = value.is_null() ? 0 : json_integer(value, place, 0, most); },
          .write = [=](const T& t) { return t.*member != 0 ? ordered_json(t.*member) : ordered_json(nullptr); }};
}

const FieldTable<RopeScaling>& scaling_fields() {
  static const FieldTable<RopeScaling> table{
      choice_field("kind", &RopeScaling::kind, {"none", "linear", "llama3", "yarn"}),
      number_field("factor", &RopeScaling::factor, 1, 1e6),
      number_field("low_frequency_factor", &RopeScaling::low_frequency_factor, 1e-6, 1e6),
      number_field("high_frequency_factor", &RopeScaling::high_frequency_factor, 1e-6, 1e6),
      integer_field("original_max_position_embeddings", &RopeScaling::original_max_position_embeddings, 1, kMostPositions),
      number_field("beta_fast", &RopeScaling::beta_fast, 1e-6, 1e6),
      number_field("beta_slow", &RopeScaling::beta_slow, 1e-6, 1e6),
      flag_field("truncate", &RopeScaling::truncate),
      nullable_number_field("mscale", &RopeScaling::mscale, 1e3),
      nullable_number_field("mscale_all_dim", &RopeScaling::mscale_all_dim, 1e3),
      optional_number_field("attention_factor", &RopeScaling::attention_factor, 1e-6, 1e6),
  };
  return table;
}

const FieldTable<RopeConfig>& rope_fields() {
  static const FieldTable<RopeConfig> table{
      number_field("theta", &RopeConfig::theta, 1, 1e12),
      optional_number_field("local_theta", &RopeConfig::local_theta, 1, 1e12),
      object_field("scaling", &RopeConfig::scaling, scaling_fields()),
      choice_field("pair_layout_in_hf_weights", &RopeConfig::pair_layout_in_hf_weights, {"half_split", "interleaved"}),
  };
  return table;
}

const FieldTable<MlaConfig>& mla_fields() {
  static const FieldTable<MlaConfig> table{
      nullable_integer_field("q_lora_rank", &MlaConfig::q_lora_rank, kMostSize),
      integer_field("kv_lora_rank", &MlaConfig::kv_lora_rank, 1, kMostSize),
      integer_field("qk_nope_head_dim", &MlaConfig::qk_nope_head_dim, 1, kMostHeads),
      integer_field("qk_rope_head_dim", &MlaConfig::qk_rope_head_dim, 2, kMostHeads),
      integer_field("v_head_dim", &MlaConfig::v_head_dim, 1, kMostHeads),
  };
  return table;
}

const FieldTable<MoeConfig>& moe_fields() {
  static const FieldTable<MoeConfig> table{
      integer_field("num_experts", &MoeConfig::num_experts, 1, kMostHeads),
      integer_field("experts_per_token", &MoeConfig::experts_per_token, 1, kMostHeads),
      nullable_integer_field("num_shared_experts", &MoeConfig::num_shared_experts, kMostHeads),
      nullable_integer_field("shared_expert_mlp_dim", &MoeConfig::shared_expert_mlp_dim, kMostSize),
      integer_field("first_dense_layers", &MoeConfig::first_dense_layers, 0, kMostLayers),
      integer_field("moe_layer_step", &MoeConfig::moe_layer_step, 1, kMostLayers),
      choice_field("routing_score", &MoeConfig::routing_score, {"softmax", "sigmoid", "softmax_of_top_k"}),
      flag_field("routing_selection_bias", &MoeConfig::routing_selection_bias),
      flag_field("normalize_topk_weights", &MoeConfig::normalize_topk_weights),
      number_field("routed_scaling_factor", &MoeConfig::routed_scaling_factor, 1e-6, 1e6),
      integer_field("num_expert_groups", &MoeConfig::num_expert_groups, 1, kMostHeads),
      integer_field("groups_selected", &MoeConfig::groups_selected, 1, kMostHeads),
      choice_field("group_score", &MoeConfig::group_score, {"max", "top2_sum"}),
      choice_field("weight_applied_to", &MoeConfig::weight_applied_to, {"expert output", "expert input"}),
      nullable_number_field("load_balance_loss_weight", &MoeConfig::load_balance_loss_weight, 1e6),
      flag_field("output_router_logits", &MoeConfig::output_router_logits),
  };
  return table;
}

const FieldTable<VisionConfig>& vision_fields() {
  static const FieldTable<VisionConfig> table{
      choice_field("kind", &VisionConfig::kind, {"siglip", "llama4"}),
      integer_field("image_size", &VisionConfig::image_size, 1, kMostHeads),
      integer_field("patch_size", &VisionConfig::patch_size, 1, 4096),
      integer_field("channels", &VisionConfig::channels, 1, 64),
      integer_field("hidden_dim", &VisionConfig::hidden_dim, 1, kMostHeads),
      integer_field("mlp_dim", &VisionConfig::mlp_dim, 1, kMostHeads),
      integer_field("num_layers", &VisionConfig::num_layers, 1, kMostLayers),
      integer_field("num_heads", &VisionConfig::num_heads, 1, kMostHeads),
      integer_field("tokens_per_image", &VisionConfig::tokens_per_image, 1, kMostSize),
      nullable_integer_field("projector_input_dim", &VisionConfig::projector_input_dim, kMostHeads),
      nullable_integer_field("projector_output_dim", &VisionConfig::projector_output_dim, kMostHeads),
      number_field("norm_epsilon", &VisionConfig::norm_epsilon, 1e-12, 1),
  };
  return table;
}

const FieldTable<TemperatureConfig>& temperature_fields() {
  static const FieldTable<TemperatureConfig> table{
      number_field("floor_scale", &TemperatureConfig::floor_scale, 1, 1e12),
      number_field("scale", &TemperatureConfig::scale, 0, 1e6),
  };
  return table;
}

void read_layer_kinds(AttentionPattern& pattern, const json& value, const JsonPlace& place) {
  if (!value.is_array() || value.empty() || value.size() > static_cast<size_t>(kMostLayers))
    refuse_json(place, "a list of one kind per layer of the pattern's period", value);
  pattern.layer_kinds.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    pattern.layer_kinds.push_back(
        json_choice(value[i], place.at(std::to_string(i)), {"global", "sliding", "chunked", "global_without_rope"}));
  }
}

// Whoever sets or removes the window of a model whose layers are alike means all layers.
void read_window(AttentionPattern& pattern, const json& value, const JsonPlace& place) {
  pattern.sliding_window = value.is_null() ? 0 : json_integer(value, place, 1, kMostPositions);
  const auto all = [&](const char* kind) {
    return std::all_of(pattern.layer_kinds.begin(), pattern.layer_kinds.end(), [&](const std::string& k) { return k == kind; });
  };
  if (pattern.sliding_window > 0 && all("global")) pattern.layer_kinds = {"sliding"};
  if (pattern.sliding_window == 0)
    std::replace(pattern.layer_kinds.begin(), pattern.layer_kinds.end(), std::string("sliding"), std::string("global"));
}

const FieldTable<AttentionPattern>& pattern_fields() {
  static const FieldTable<AttentionPattern> table{
      Field<AttentionPattern>{
          .name = "layer_kinds", .read = read_layer_kinds, .write = [](const AttentionPattern& p) { return ordered_json(p.layer_kinds); }},
      Field<AttentionPattern>{
          .name = "sliding_window",
          .read = read_window,
          .write = [](const AttentionPattern& p) { return p.sliding_window > 0 ? ordered_json(p.sliding_window) : ordered_json(nullptr); }},
      nullable_integer_field("chunk_size", &AttentionPattern::chunk_size, kMostPositions),
  };
  return table;
}

// null is "none"; an object sets the fields that it has, beginning with the defaults where there was none.
template <typename Inner>
Field<ModelConfig> optional_object_field(std::string name, std::optional<Inner> ModelConfig::* member, const FieldTable<Inner>& table) {
  return {.name = std::move(name),
          .read =
              [=, &table](ModelConfig& c, const json& value, const JsonPlace& place) {
                if (value.is_null()) return (c.*member).reset();
                Inner inner = (c.*member).value_or(Inner{});
                read_object(inner, value, table, place);
                c.*member = inner;
              },
          .write = [=, &table](const ModelConfig& c) { return c.*member ? write_object(*(c.*member), table) : ordered_json(nullptr); }};
}

const FieldTable<BiasConfig>& bias_fields() {
  static const FieldTable<BiasConfig> table{
      flag_field("qkv", &BiasConfig::qkv),
      flag_field("attention_output", &BiasConfig::attention_output),
      flag_field("mlp", &BiasConfig::mlp),
  };
  return table;
}

const FieldTable<QkNorm>& qk_norm_fields() {
  static const FieldTable<QkNorm> table{choice_field("kind", &QkNorm::kind, {"rms", "l2"}),
                                        number_field("epsilon", &QkNorm::epsilon, 1e-12, 1)};
  return table;
}

void read_family(ModelConfig& config, const json& value, const JsonPlace& place) {
  const ModelFamily& family = model_family(json_text(value, place));
  config.family = family.name;
  config.hf_architecture = config.hf_model_type = "";  // filled in by the check, which knows whether there is an image encoder
}

// null and "head_dim^-0.5" are 1/sqrt(head_dim); "256^-0.5" and 0.0625 are themselves.
void read_attention_scale(ModelConfig& config, const json& value, const JsonPlace& place) {
  if (value.is_null() || value == "head_dim^-0.5") return config.attention_scale.reset();
  const std::string expected = "null, a number above 0, or a text such as 'head_dim^-0.5' or '256^-0.5'";
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    const size_t num_digits = text.find_first_not_of("0123456789");
    if (num_digits == 0 || num_digits > 9 || text.substr(std::min(num_digits, text.size())) != "^-0.5" || std::stoll(text) == 0)
      refuse_json(place, expected, value);
    config.attention_scale = 1.0 / std::sqrt(static_cast<double>(std::stoll(text)));
  } else {
    if (!value.is_number() || value.get<double>() <= 0) refuse_json(place, expected, value);
    config.attention_scale = value.get<double>();
  }
}

// One id or a list of them.
void read_eos(ModelConfig& config, const json& value, const JsonPlace& place) {
  config.eos_token_ids.clear();
  if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i)
      config.eos_token_ids.push_back(json_integer(value[i], place.at(std::to_string(i)), 0, kMostTokenId));
  } else if (!value.is_null()) {
    config.eos_token_ids.push_back(json_integer(value, place, 0, kMostTokenId));
  }
}

ordered_json write_eos(const ModelConfig& config) {
  if (config.eos_token_ids.empty()) return nullptr;
  return config.eos_token_ids.size() == 1 ? ordered_json(config.eos_token_ids[0]) : ordered_json(config.eos_token_ids);
}

// -1 stands for "none" in old files.
Field<ModelConfig> token_field(std::string name, std::optional<int64_t> ModelConfig::* member) {
  return {.name = std::move(name),
          .read =
              [=](ModelConfig& c, const json& value, const JsonPlace& place) {
                c.*member = value.is_null() || value == -1 ? std::nullopt : std::optional(json_integer(value, place, 0, kMostTokenId));
              },
          .write = [=](const ModelConfig& c) { return c.*member ? ordered_json(*(c.*member)) : ordered_json(nullptr); }};
}

Field<ModelConfig> text_field(std::string name, std::string ModelConfig::* member) {
  return {.name = std::move(name),
          .read = [=](ModelConfig& c, const json& value,
                      const JsonPlace& place) { c.*member = value.is_null() ? "" : json_text(value, place); },
          .write = [=](const ModelConfig& c) { return (c.*member).empty() ? ordered_json(nullptr) : ordered_json(c.*member); }};
}

template <typename Read, typename Write>
Field<ModelConfig> own_field(std::string name, Read read, Write write) {
  return {.name = std::move(name), .read = read, .write = write};
}

const FieldTable<ModelConfig>& model_fields() {
  using C = ModelConfig;
  static const FieldTable<C> table{
      Field<C>{.name = "family", .read = read_family, .write = [](const C& c) { return ordered_json(c.family); }, .required = true},
      text_field("hf_architecture", &C::hf_architecture),
      text_field("hf_model_type", &C::hf_model_type),
      text_field("hf_repo", &C::hf_repo),
      integer_field("embedding_dim", &C::embedding_dim, 1, kMostSize, true),
      integer_field("mlp_dim", &C::mlp_dim, 1, kMostSize, true),
      integer_field("num_layers", &C::num_layers, 1, kMostLayers, true),
      integer_field("num_query_heads", &C::num_query_heads, 1, kMostHeads, true),
      integer_field("num_kv_heads", &C::num_kv_heads, 1, kMostHeads, true),
      integer_field("head_dim", &C::head_dim, 1, kMostHeads, true),
      integer_field("vocab_size", &C::vocab_size, 1, kMostTokenId, true),
      integer_field("max_position_embeddings", &C::max_position_embeddings, 1, kMostPositions, true),
      nullable_integer_field("moe_mlp_dim", &C::moe_mlp_dim, kMostSize),
      choice_field("activation", &C::activation, {"silu", "gelu_tanh", "gelu_erf", "relu", "clamped_swiglu"}),
      number_field("activation_clamp_limit", &C::activation_clamp_limit, 1e-6, 1e6),
      number_field("activation_alpha", &C::activation_alpha, 1e-6, 1e6),
      number_field("norm_epsilon", &C::norm_epsilon, 1e-12, 1),
      optional_object_field("qk_norm", &C::qk_norm, qk_norm_fields()),
      own_field("attention_scale", read_attention_scale,
                [](const C& c) { return c.attention_scale ? ordered_json(*c.attention_scale) : ordered_json("head_dim^-0.5"); }),
      object_field("rope", &C::rope, rope_fields()),
      flag_field("tie_embeddings", &C::tie_embeddings),
      nullable_number_field("attention_logit_softcap", &C::attention_logit_softcap, 1e9),
      nullable_number_field("final_logit_softcap", &C::final_logit_softcap, 1e9),
      object_field("attention_pattern", &C::attention_pattern, pattern_fields()),
      optional_object_field("temperature_tuning", &C::temperature_tuning, temperature_fields()),
      object_field("bias", &C::bias, bias_fields()),
      optional_object_field("mla", &C::mla, mla_fields()),
      optional_object_field("moe", &C::moe, moe_fields()),
      nullable_integer_field("mtp_layers", &C::mtp_layers, kMostLayers),
      optional_object_field("vision", &C::vision, vision_fields()),
      token_field("bos_token_id", &C::bos_token_id),
      own_field("eos_token_id", read_eos, write_eos),
      token_field("pad_token_id", &C::pad_token_id),
  };
  return table;
}

// Fields that follow from others in the class of the model, and were not set themselves.
void follow_changes(ModelConfig& changed, const ModelConfig& before) {
  const ModelFamily& family = model_family(changed.family);
  if (changed.qk_norm && before.qk_norm == changed.qk_norm) changed.qk_norm->epsilon = changed.norm_epsilon;
  if (family.one_mlp_width) {
    if (changed.mlp_dim != before.mlp_dim && changed.moe_mlp_dim == before.moe_mlp_dim) changed.moe_mlp_dim = changed.mlp_dim;
    if (changed.moe_mlp_dim != before.moe_mlp_dim && changed.mlp_dim == before.mlp_dim) changed.mlp_dim = changed.moe_mlp_dim;
  }
  if (changed.moe && before.moe && changed.moe->shared_expert_mlp_dim == before.moe->shared_expert_mlp_dim)
    changed.moe->shared_expert_mlp_dim = changed.moe->num_shared_experts * changed.moe_mlp_dim;
  if (changed.mla) {
    if (changed.head_dim == before.head_dim) changed.head_dim = changed.mla->qk_nope_head_dim + changed.mla->qk_rope_head_dim;
    if (changed.num_kv_heads == before.num_kv_heads) changed.num_kv_heads = changed.num_query_heads;
  }
  if (changed.vision.has_value() != before.vision.has_value()) changed.hf_architecture = changed.hf_model_type = "";
}

std::string stem(const std::string& source) {
  std::string name = source.substr(source.find_last_of('/') + 1);
  if (name.ends_with(".json")) name.resize(name.size() - 5);
  return name;
}

}  // namespace

std::vector<std::string> model_field_names() { return field_names(model_fields()); }

void set_model_field(ModelConfig& config, const std::string& field, const json& value, const JsonPlace& place) {
  // "rope.scaling.factor" is {"scaling": {"factor": value}} of the field rope.
  const std::string first = field.substr(0, field.find('.'));
  json nested = value;
  for (size_t end = field.size(); end > first.size();) {
    const size_t dot = field.rfind('.', end - 1);
    nested = json{{field.substr(dot + 1, end - dot - 1), nested}};
    end = dot;
  }
  const Field<ModelConfig>* found = find_field(model_fields(), first);
  if (!found) refuse_key({place.source, ""}, field, model_field_names());
  // The reader of a nested object adds the rest of the dotted name to the place itself, where it is spelled as ours.
  const bool same_spelling = place.path == field;
  found->read(config, nested, same_spelling ? JsonPlace{place.source, first} : JsonPlace{place.source, place.path, first != field});
}

ModelConfig model_config_from_json(const json& object, const std::string& source) {
  const JsonPlace place{source, ""};
  if (json_object(object, place).contains("model_type") || object.contains("architectures"))
    return model_config_from_huggingface(object, source);
  ModelConfig config;
  config.name = stem(source);
  for (const Field<ModelConfig>& field : model_fields()) {
    if (field.required && !object.contains(field.name)) {
      const std::string last = object.empty() ? "" : nearest_name(field.name, [&] {
        std::vector<std::string> unknown;
        for (const auto& [key, value] : object.items()) {
          if (!find_field(model_fields(), key)) unknown.push_back(key);
        }
        return unknown;
      }());
      throw UserError(source + ": the key '" + field.name + "' is missing" + (last.empty() ? "" : " (is '" + last + "' meant to be it?)"));
    }
  }
  read_family(config, object.at("family"), place.at("family"));  // first: it sets what other fields may confirm
  for (const auto& [key, value] : object.items()) set_model_field(config, our_field_name(config.family, key), value, place.at(key));
  check_model_config(config);
  return config;
}

ModelConfig parse_model_config(std::string_view text, const std::string& source) {
  return model_config_from_json(parse_json_strict(text, source), source);
}

void override_model_config(ModelConfig& config, const json& overrides, const std::string& source) {
  const JsonPlace place{source, ""};
  ModelConfig changed = config;
  if (json_object(overrides, place).contains("family")) read_family(changed, overrides.at("family"), place.at("family"));
  for (const auto& [key, value] : overrides.items()) set_model_field(changed, our_field_name(changed.family, key), value, place.at(key));
  follow_changes(changed, config);
  check_model_config(changed);
  config = changed;
}

std::string model_config_text(const ModelConfig& config) { return write_object(config, model_fields()).dump(2) + "\n"; }

}  // namespace mw
