#include "config/huggingface_layers.h"

#include <algorithm>

#include "base/error.h"
#include "config/huggingface_tables.h"
#include "config/model_config_json.h"
#include "models/registry.h"

namespace mw {
namespace {

using nlohmann::json;

bool contains(const std::vector<std::string>& list, const std::string& kind) {
  return std::find(list.begin(), list.end(), kind) != list.end();
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

// One kind of transformers per layer.
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

std::vector<std::string> layer_types(const ModelConfig& config) {
  std::vector<std::string> types;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string& kind = config.layer_kind(i);
    types.push_back(kind == "sliding" ? "sliding_attention" : kind == "chunked" ? "chunked_attention" : "full_attention");
  }
  return types;
}

int64_t positive(const json& object, const char* key, int64_t otherwise, const JsonPlace& place) {
  const json* value = present_json(object, key);
  return value ? json_integer(*value, place.at(key), 1, int64_t{1} << 31) : otherwise;
}

// Every period-th layer is global.
std::vector<std::string> sliding_but_every(int64_t period, int64_t num_layers) {
  std::vector<std::string> kinds;
  for (int64_t i = 0; i < num_layers; ++i) kinds.push_back((i + 1) % period == 0 ? "global" : "sliding");
  return kinds;
}

// Where layer_types is absent.
std::vector<std::string> default_kinds(const ModelConfig& config, const json& object, const JsonPlace& place) {
  const std::string& family = config.family;
  std::vector<std::string> kinds(static_cast<size_t>(config.num_layers), "global");
  const bool has_window = config.attention_pattern.sliding_window > 0;
  if (family == "gemma2" || family == "gpt_oss") return sliding_but_every(2, config.num_layers);
  if (family == "gemma3") {
    const char* key = present_json(object, "sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    return sliding_but_every(positive(object, key, 6, place), config.num_layers);
  }
  if (family == "qwen3" || family == "qwen3_moe") {
    const json* used = present_json(object, "use_sliding_window");
    const json* num_full = present_json(object, "max_window_layers");
    const int64_t full = family == "qwen3_moe" ? 0  // its class looks at use_sliding_window alone
                         : num_full            ? json_integer(*num_full, place.at("max_window_layers"), 0, int64_t{1} << 31)
                                               : 28;
    if (used && json_flag(*used, place.at("use_sliding_window")) && has_window) {
      for (int64_t i = full; i < config.num_layers; ++i) kinds[static_cast<size_t>(i)] = "sliding";
    }
    return kinds;
  }
  if (has_window) kinds.assign(kinds.size(), "sliding");
  return kinds;
}

}  // namespace

void read_huggingface_window(ModelConfig& config, const json& object, const JsonPlace& place) {
  AttentionPattern& pattern = config.attention_pattern;
  if (object.contains("sliding_window"))
    set_model_field(config, "attention_pattern.sliding_window", object.at("sliding_window"), place.at("sliding_window"));
  // These classes look at nothing but the window.
  const bool by_window = config.family == "mistral" || config.family == "mixtral" || config.family == "qwen3_moe";
  const json* types = by_window ? nullptr : present_json(object, "layer_types");
  const std::vector<std::string> kinds =
      types ? read_layer_types(*types, config.num_layers, place.at("layer_types")) : default_kinds(config, object, place);
  const bool slides = contains(kinds, "sliding");
  if (slides && pattern.sliding_window == 0)
    throw UserError(place.text() + ": layer_types has 'sliding_attention', but sliding_window is null or absent");
  if (!slides) pattern.sliding_window = 0;
  pattern.layer_kinds = period_of(kinds);
}

void write_huggingface_window(json& out, const ModelConfig& config) {
  const ModelFamily& family = model_family(config.family);
  if (!contains(family.layer_kinds, "sliding")) return;
  const AttentionPattern& pattern = config.attention_pattern;
  const bool window = pattern.sliding_window > 0;
  out["sliding_window"] = window ? json(pattern.sliding_window) : json(nullptr);
  const std::vector<std::string> types = layer_types(config);
  if (!family.one_layer_kind) out["layer_types"] = types;
  if (config.family == "qwen3" || config.family == "qwen3_moe") out["use_sliding_window"] = window;
  if (config.family == "qwen3") out["max_window_layers"] = std::find(types.begin(), types.end(), "sliding_attention") - types.begin();
  if (config.family == "gemma3") {  // early versions of its class look at nothing else
    const std::vector<std::string>& kinds = pattern.layer_kinds;
    if (std::find(kinds.begin(), kinds.end(), "global") == kinds.end() - 1) out["sliding_window_pattern"] = kinds.size();
  }
}

void read_huggingface_chunks(ModelConfig& config, const json& object, const JsonPlace& place) {
  AttentionPattern& pattern = config.attention_pattern;
  if (object.contains("attention_chunk_size"))
    set_model_field(config, "attention_pattern.chunk_size", object.at("attention_chunk_size"), place.at("attention_chunk_size"));
  const int64_t interval = positive(object, "no_rope_layer_interval", 4, place);
  const json* listed = present_json(object, "no_rope_layers");
  const bool by_list = listed && !(listed->is_array() && listed->empty());
  if (by_list && (!listed->is_array() || static_cast<int64_t>(listed->size()) < config.num_layers))
    refuse_json(place.at("no_rope_layers"), "a list of a 0 or 1 per layer", *listed);
  const json* types = present_json(object, "layer_types");
  std::vector<std::string> kinds;
  if (types) kinds = read_layer_types(*types, config.num_layers, place.at("layer_types"));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const auto index = static_cast<size_t>(i);
    const JsonPlace at = place.at("no_rope_layers").at(std::to_string(i));
    const bool rope = by_list ? json_integer((*listed)[index], at, 0, 1) == 1 : (i + 1) % interval != 0;
    if (!types) kinds.emplace_back(rope && pattern.chunk_size > 0 ? "chunked" : "global");
    if (rope) continue;
    if (kinds[index] != "global") {
      throw UserError(concat_text(place.at("layer_types").text(), ": layer ", i,
                                  " has no rope and is not 'full_attention'; expected one or the other"));
    }
    kinds[index] = "global_without_rope";
  }
  if (!contains(kinds, "chunked")) pattern.chunk_size = 0;
  pattern.layer_kinds = period_of(kinds);
}

void write_huggingface_chunks(json& out, const ModelConfig& config) {
  out["layer_types"] = layer_types(config);
  std::vector<int> rope;
  for (int64_t i = 0; i < config.num_layers; ++i) rope.push_back(config.layer_kind(i) == "global_without_rope" ? 0 : 1);
  out["no_rope_layers"] = rope;
  const int64_t chunk = config.attention_pattern.chunk_size;
  out["attention_chunk_size"] = chunk > 0 ? json(chunk) : json(nullptr);
}

}  // namespace mw
