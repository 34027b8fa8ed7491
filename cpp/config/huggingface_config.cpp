#include "config/huggingface_config.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "config/huggingface_tables.h"
#include "config/json_fields.h"
#include "config/model_config_json.h"
#include "models/registry.h"

namespace mw {
namespace {

using nlohmann::json;

bool contains(const std::vector<std::string>& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

// The value of a key, or null when it is absent or null.
const json* present(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const ModelFamily& family_of(const json& object, const JsonPlace& place) {
  const bool by_class = present(object, "architectures") != nullptr;
  std::string wanted;
  JsonPlace where = place.at("model_type");
  if (by_class) {
    where = place.at("architectures");
    const json& names = object.at("architectures");
    if (!names.is_array() || names.size() != 1) refuse_json(where, "a list of one class name", names);
    wanted = json_text(names[0], where);
  } else {
    wanted = json_text(object.value("model_type", json(nullptr)), where);
  }
  std::vector<std::string> known;
  std::string listed;
  for (const ModelFamily& family : model_families()) {
    known.push_back(by_class ? family.hf_architecture : family.hf_model_type);
    if (known.back() == wanted) return family;
    listed += (listed.empty() ? "" : ", ") + known.back();
  }
  throw UserError(where.text() + ": expected one of " + listed + ", found " + in_quotes(wanted) + did_you_mean(wanted, known));
}

void refuse_unknown_keys(const json& object, const HuggingFaceTable& table, const JsonPlace& place) {
  std::vector<std::string> known = huggingface_keys_read_together();
  for (const auto& [key, field] : table.fields) known.push_back(key);
  for (const auto& [key, value] : object.items()) {
    if (contains(known, key) || contains(huggingface_keys_without_meaning(), key)) continue;
    if (key != "quantization_config") refuse_key(place, key, known);
    if (!value.is_null())
      throw UserError(place.at(key).text() + ": expected weights in float32, bfloat16 or float16, found quantised ones");
  }
}

// rope_scaling or rope_parameters: {"rope_type": "llama3", "factor": 8.0, ...}; files before 2024 say "type".
void read_rope(RopeConfig& rope, const json& object, const JsonPlace& place) {
  const std::vector<std::string> kinds{"default", "linear", "llama3"};
  const std::vector<std::string> known{"rope_type",
                                       "type",
                                       "rope_theta",
                                       "factor",
                                       "low_freq_factor",
                                       "high_freq_factor",
                                       "original_max_position_embeddings",
                                       "partial_rotary_factor"};
  for (const auto& [key, value] : json_object(object, place).items()) {
    if ((key == "rope_type" || key == "type") && value.is_string() && !contains(kinds, value.get<std::string>())) {
      throw UserError(place.at(key).text() + ": the rope type " + in_quotes(value.get<std::string>()) +
                      " does not exist here; there are 'default', 'linear' and 'llama3'");
    }
  }
  for (const auto& [key, value] : object.items()) {
    if (!contains(known, key)) refuse_key(place, key, known);
  }
  const char* kind_key = present(object, "rope_type") ? "rope_type" : "type";
  const std::string kind = present(object, kind_key) ? json_choice(object.at(kind_key), place.at(kind_key), kinds) : "default";
  const auto required = [&](const char* key) -> const json& {
    if (!present(object, key))
      throw UserError(place.text() + ": the rope type '" + kind + "' wants the key '" + key + "', which is missing");
    return object.at(key);
  };
  rope.scaling = RopeScaling{};
  rope.scaling.kind = kind == "default" ? "none" : kind;
  if (kind != "default") rope.scaling.factor = json_number(required("factor"), place.at("factor"), 1, 1e6);
  if (kind == "llama3") {
    rope.scaling.low_frequency_factor = json_number(required("low_freq_factor"), place.at("low_freq_factor"), 1e-6, 1e6);
    rope.scaling.high_frequency_factor = json_number(required("high_freq_factor"), place.at("high_freq_factor"), 1e-6, 1e6);
    rope.scaling.original_max_position_embeddings =
        json_integer(required("original_max_position_embeddings"), place.at("original_max_position_embeddings"), 1, int64_t{1} << 31);
  }
  if (const json* theta = present(object, "rope_theta")) rope.theta = json_number(*theta, place.at("rope_theta"), 1, 1e12);
  if (const json* share = present(object, "partial_rotary_factor")) json_number(*share, place.at("partial_rotary_factor"), 1, 1);
}

// The shortest list that repeats to `kinds`.
std::vector<std::string> period_of(const std::vector<std::string>& kinds) {
  for (size_t period = 1; period < kinds.size(); ++period) {
    bool repeats = true;
    for (size_t i = period; i < kinds.size() && repeats; ++i) repeats = kinds[i] == kinds[i - period];
    if (repeats) return {kinds.begin(), kinds.begin() + static_cast<std::ptrdiff_t>(period)};
  }
  return kinds;
}

// One kind of transformers per layer: "full_attention", "sliding_attention", "chunked_attention".
std::vector<std::string> read_layer_types(const json& value, int64_t num_layers, const JsonPlace& place) {
  if (!value.is_array() || static_cast<int64_t>(value.size()) != num_layers)
    refuse_json(place, "a list of " + std::to_string(num_layers) + " kinds, one per layer", value);
  std::vector<std::string> kinds;
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string kind =
        json_choice(value[i], place.at(std::to_string(i)), {"full_attention", "sliding_attention", "chunked_attention"});
    kinds.push_back(kind == "full_attention" ? "global" : kind == "sliding_attention" ? "sliding" : "chunked");
  }
  return kinds;
}

// Which layers have a window: what sliding_window, layer_types, use_sliding_window and max_window_layers say together.
void read_window(ModelConfig& config, const json& object, const JsonPlace& place) {
  AttentionPattern& pattern = config.attention_pattern;
  if (object.contains("sliding_window"))
    set_model_field(config, "attention_pattern.sliding_window", object.at("sliding_window"), place.at("sliding_window"));
  if (config.family == "mistral") {  // its class looks at nothing else
    pattern.layer_kinds = {pattern.sliding_window > 0 ? "sliding" : "global"};
    return;
  }
  std::vector<std::string> kinds(static_cast<size_t>(config.num_layers), "global");
  if (const json* layer_types = present(object, "layer_types")) {
    kinds = read_layer_types(*layer_types, config.num_layers, place.at("layer_types"));
  } else if (config.family == "qwen3") {
    const json* used = present(object, "use_sliding_window");
    const json* num_full = present(object, "max_window_layers");
    const int64_t full = num_full ? json_integer(*num_full, place.at("max_window_layers"), 0, int64_t{1} << 31) : 28;
    if (used && json_flag(*used, place.at("use_sliding_window")) && pattern.sliding_window > 0) {
      for (int64_t i = full; i < config.num_layers; ++i) kinds[static_cast<size_t>(i)] = "sliding";
    }
  } else if (pattern.sliding_window > 0) {
    kinds.assign(kinds.size(), "sliding");
  }
  const bool slides = std::find(kinds.begin(), kinds.end(), "sliding") != kinds.end();
  if (slides && pattern.sliding_window == 0)
    throw UserError(place.text() + ": layer_types has 'sliding_attention', but sliding_window is null or absent");
  if (!slides) pattern.sliding_window = 0;
  pattern.layer_kinds = period_of(kinds);
}

// ".../qwen3-tiny/config.json" is called after its folder.
std::string model_name(const std::string& source) {
  std::string name = source;
  if (name.ends_with("/config.json")) name.resize(name.size() - 12);
  name = name.substr(name.find_last_of('/') + 1);
  return name.empty() ? source : name;
}

}  // namespace

ModelConfig model_config_from_huggingface(const json& object, const std::string& source) {
  const JsonPlace place{source, ""};
  const ModelFamily& family = family_of(json_object(object, place), place);
  const HuggingFaceTable& table = huggingface_table(family.name);
  refuse_unknown_keys(object, table, place);
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    if (!present(object, key)) throw UserError(source + ": the key '" + key + "' is missing");
  }
  ModelConfig config = table.defaults;
  config.name = model_name(source);
  config.family = family.name;
  config.hf_architecture = family.hf_architecture;
  config.hf_model_type = family.hf_model_type;
  for (const auto& [key, field] : table.fields) {
    if (!object.contains(key)) continue;
    // null: no such token; everywhere else the class's default.
    if (present(object, key) || key.ends_with("_token_id")) set_model_field(config, field, object.at(key), place.at(key));
  }
  if (config.num_kv_heads == 0) config.num_kv_heads = config.num_query_heads;
  if (config.head_dim == 0) {
    if (config.embedding_dim % config.num_query_heads != 0) {
      throw UserError(concat_text(source, ": head_dim is missing and hidden_size (", config.embedding_dim,
                                  ") is not a multiple of num_attention_heads (", config.num_query_heads, ")"));
    }
    config.head_dim = config.embedding_dim / config.num_query_heads;
  }
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (const json* rope = present(object, key)) read_rope(config.rope, *rope, place.at(key));
  }
  if (const json* activation = present(object, "hidden_act")) {
    std::vector<std::string> known;
    for (const auto& [name, ours] : huggingface_activations()) known.push_back(name);
    config.activation = huggingface_activations().at(json_choice(*activation, place.at("hidden_act"), known));
  }
  if (const json* bias = present(object, "attention_bias"))
    config.bias.qkv = config.bias.attention_output = json_flag(*bias, place.at("attention_bias"));
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (const json* dtype = present(object, key); dtype && *dtype != "auto")
      config.dtype = parse_dtype(json_choice(*dtype, place.at(key), {"float32", "bfloat16", "float16"}));
  }
  if (config.qk_norm) config.qk_norm->epsilon = config.norm_epsilon;
  read_window(config, object, place);
  check_model_config(config);
  return config;
}

std::string our_field_name(const std::string& family, const std::string& huggingface_name) {
  const auto& fields = huggingface_table(family).fields;
  const auto found = fields.find(huggingface_name);
  return found == fields.end() ? huggingface_name : found->second;
}

std::string huggingface_dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    default:
      throw UserError("weights are stored as float32, bfloat16 or float16, not as " + std::string(dtype_name(dtype)));
  }
}

namespace {

void write_rope(json& out, const RopeConfig& config) {
  const RopeScaling& scaling = config.scaling;
  json rope{{"rope_type", scaling.kind == "none" ? "default" : scaling.kind}};
  if (scaling.kind != "none") rope["factor"] = scaling.factor;
  if (scaling.kind == "llama3") {
    rope["low_freq_factor"] = scaling.low_frequency_factor;
    rope["high_freq_factor"] = scaling.high_frequency_factor;
    rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  }
  // transformers 4 reads rope_theta and rope_scaling, transformers 5 rope_parameters.
  out["rope_theta"] = config.theta;
  out["rope_scaling"] = scaling.kind == "none" ? json(nullptr) : rope;
  rope["rope_theta"] = config.theta;
  out["rope_parameters"] = rope;
}

// Ids beyond the vocabulary (a published model's, kept while vocab_size was overridden) would only make transformers warn.
void write_tokens(json& out, const ModelConfig& config) {
  const auto token = [&](std::optional<int64_t> id) { return id && *id < config.vocab_size ? json(*id) : json(nullptr); };
  out["bos_token_id"] = token(config.bos_token_id);
  out["pad_token_id"] = token(config.pad_token_id);
  json eos = json::array();
  for (const int64_t id : config.eos_token_ids) {
    if (id < config.vocab_size) eos.push_back(id);
  }
  if (eos.empty())
    eos = nullptr;
  else if (eos.size() == 1)
    eos = json(eos[0]);
  out["eos_token_id"] = eos;
}

}  // namespace

std::string huggingface_config_text(const ModelConfig& config, DType dtype) {
  ModelConfig plain = config;
  plain.attention_scale.reset();
  if (config.softmax_scale() != plain.softmax_scale()) {
    throw UserError(concat_text("model '", config.name, "': attention_scale is ", *config.attention_scale, ", which ",
                                config.hf_architecture, " cannot express; it always has head_dim^-0.5"));
  }
  const ModelFamily& family = model_family(config.family);
  json out{{"model_type", family.hf_model_type}, {"attention_dropout", 0.0}, {"initializer_range", 0.02}, {"use_cache", true}};
  out["architectures"] = std::vector<std::string>{family.hf_architecture};
  out["hidden_size"] = config.embedding_dim;
  out["intermediate_size"] = config.mlp_dim;
  out["num_hidden_layers"] = config.num_layers;
  out["num_attention_heads"] = config.num_query_heads;
  out["num_key_value_heads"] = config.num_kv_heads;
  out["head_dim"] = config.head_dim;
  out["vocab_size"] = config.vocab_size;
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["rms_norm_eps"] = config.norm_epsilon;
  out["tie_word_embeddings"] = config.tie_embeddings;
  out["torch_dtype"] = out["dtype"] = huggingface_dtype_name(dtype);
  for (const auto& [name, ours] : huggingface_activations()) {
    if (ours == config.activation) out["hidden_act"] = name;
  }
  write_rope(out, config.rope);
  write_tokens(out, config);
  const AttentionPattern& pattern = config.attention_pattern;
  const bool window = pattern.sliding_window > 0;
  if (family.has_attention_bias) out["attention_bias"] = config.bias.qkv;
  if (family.has_mlp_bias) out["mlp_bias"] = config.bias.mlp;
  const bool can_slide = contains(family.layer_kinds, "sliding");
  if (can_slide) out["sliding_window"] = window ? json(pattern.sliding_window) : json(nullptr);
  if (family.name == "qwen3") {
    out["use_sliding_window"] = window;
    std::vector<std::string> types;
    for (int64_t i = 0; i < config.num_layers; ++i)
      types.push_back(config.layer_kind(i) == "sliding" ? "sliding_attention" : "full_attention");
    out["max_window_layers"] = std::find(types.begin(), types.end(), "sliding_attention") - types.begin();
    out["layer_types"] = types;
  }
  return out.dump(2) + "\n";
}

}  // namespace mw
