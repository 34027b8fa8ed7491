#include "config/huggingface_rope.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "config/huggingface_tables.h"
#include "models/registry.h"

namespace mw {
namespace {

using nlohmann::json;

constexpr int64_t kMostPositions = int64_t{1} << 31;

bool contains(const std::vector<std::string>& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

std::string ours(const std::string& kind) { return kind == "default" ? "none" : kind; }

// {"rope_type": "llama3", "factor": 8.0, ...}; files before 2024 say "type".
class RopeReader {
 public:
  RopeReader(const ModelConfig& config, const json& object, JsonPlace place)
      : config_(config), object_(json_object(object, place)), place_(std::move(place)), family_(model_family(config.family)) {}

  // Gives the scaling, and sets `theta` where the object has one.
  RopeScaling read(double& theta) const {
    const std::string kind = read_kind();
    RopeScaling scaling;
    scaling.kind = ours(kind);
    if (kind != "default") scaling.factor = number(required("factor", kind), "factor", 1);
    if (kind == "llama3") {
      scaling.low_frequency_factor = number(required("low_freq_factor", kind), "low_freq_factor", 1e-6);
      scaling.high_frequency_factor = number(required("high_freq_factor", kind), "high_freq_factor", 1e-6);
      scaling.original_max_position_embeddings = positions(required("original_max_position_embeddings", kind));
    }
    if (kind == "yarn") read_yarn(scaling);
    if (const json* value = present_json(object_, "rope_theta")) theta = json_number(*value, place_.at("rope_theta"), 1, 1e12);
    if (const json* share = present_json(object_, "partial_rotary_factor")) json_number(*share, place_.at("partial_rotary_factor"), 1, 1);
    return scaling;
  }

 private:
  std::string read_kind() const {
    std::vector<std::string> kinds;
    for (const std::string& kind : family_.rope_scalings) kinds.push_back(kind == "none" ? "default" : kind);
    std::string listed;
    for (const std::string& kind : kinds) listed += (listed.empty() ? "'" : kind == kinds.back() ? " and '" : ", '") + kind + "'";
    for (const char* key : {"rope_type", "type"}) {
      const json* value = present_json(object_, key);
      if (value && value->is_string() && !contains(kinds, value->get<std::string>())) {
        throw UserError(place_.at(key).text() + ": the rope type " + in_quotes(value->get<std::string>()) +
                        " does not exist here; there are " + listed);
      }
    }
    const char* key = present_json(object_, "rope_type") ? "rope_type" : "type";
    const std::string kind = present_json(object_, key) ? json_choice(object_.at(key), place_.at(key), kinds) : "default";
    std::vector<std::string> known{"rope_type",
                                   "type",
                                   "rope_theta",
                                   "factor",
                                   "low_freq_factor",
                                   "high_freq_factor",
                                   "original_max_position_embeddings",
                                   "partial_rotary_factor"};
    if (kind == "yarn") {
      for (const char* more : {"beta_fast", "beta_slow", "truncate", "mscale", "mscale_all_dim", "attention_factor"}) known.push_back(more);
    }
    for (const auto& [name, value] : object_.items()) {
      if (!contains(known, name)) refuse_key(place_, name, known);
    }
    return kind;
  }

  void read_yarn(RopeScaling& scaling) const {
    const json* original = present_json(object_, "original_max_position_embeddings");
    scaling.original_max_position_embeddings = original ? positions(*original) : config_.max_position_embeddings;
    const auto optional = [&](const char* key, double& value, double least) {
      if (const json* found = present_json(object_, key)) value = number(*found, key, least);
    };
    optional("beta_fast", scaling.beta_fast, 1e-6);
    optional("beta_slow", scaling.beta_slow, 1e-6);
    optional("mscale", scaling.mscale, 0);
    optional("mscale_all_dim", scaling.mscale_all_dim, 0);
    if (const json* flag = present_json(object_, "truncate")) scaling.truncate = json_flag(*flag, place_.at("truncate"));
    if (const json* factor = present_json(object_, "attention_factor"))
      scaling.attention_factor = number(*factor, "attention_factor", 1e-6);
  }

  const json& required(const char* key, const std::string& kind) const {
    if (!present_json(object_, key))
      throw UserError(place_.text() + ": the rope type '" + kind + "' wants the key '" + key + "', which is missing");
    return object_.at(key);
  }

  double number(const json& value, const char* key, double least) const { return json_number(value, place_.at(key), least, 1e6); }

  int64_t positions(const json& value) const {
    return json_integer(value, place_.at("original_max_position_embeddings"), 1, kMostPositions);
  }

  const ModelConfig& config_;
  const json& object_;
  JsonPlace place_;
  const ModelFamily& family_;
};

// {"full_attention": {...}, "sliding_attention": {...}}: one per kind of layers (Gemma 3).
void read_by_layer_kind(ModelConfig& config, const json& object, const JsonPlace& place) {
  const std::vector<std::string> kinds{"full_attention", "sliding_attention"};
  for (const auto& [key, value] : json_object(object, place).items()) {
    if (!contains(kinds, key)) refuse_key(place, key, kinds);
  }
  if (const json* full = present_json(object, "full_attention"))
    config.rope.scaling = RopeReader(config, *full, place.at("full_attention")).read(config.rope.theta);
  if (const json* sliding = present_json(object, "sliding_attention")) {
    const JsonPlace at = place.at("sliding_attention");
    double theta = *config.rope.local_theta;
    if (RopeReader(config, *sliding, at).read(theta).kind != "none")
      refuse_json(at, "the rope type 'default', as sliding layers have no scaling here", *sliding);
    config.rope.local_theta = theta;
  }
}

json scaling_json(const RopeScaling& scaling) {
  json rope{{"rope_type", scaling.kind == "none" ? "default" : scaling.kind}};
  if (scaling.kind != "none") rope["factor"] = scaling.factor;
  if (scaling.kind == "llama3") {
    rope["low_freq_factor"] = scaling.low_frequency_factor;
    rope["high_freq_factor"] = scaling.high_frequency_factor;
  }
  if (scaling.kind == "llama3" || scaling.kind == "yarn")
    rope["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  if (scaling.kind == "yarn") {
    rope["beta_fast"] = scaling.beta_fast;
    rope["beta_slow"] = scaling.beta_slow;
    rope["truncate"] = scaling.truncate;
    if (scaling.mscale != 0) rope["mscale"] = scaling.mscale;
    if (scaling.mscale_all_dim != 0) rope["mscale_all_dim"] = scaling.mscale_all_dim;
    if (scaling.attention_factor) rope["attention_factor"] = *scaling.attention_factor;
  }
  return rope;
}

}  // namespace

// Where a file has both, transformers takes rope_scaling.
void read_huggingface_rope(ModelConfig& config, const json& object, const JsonPlace& place) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const json* rope = present_json(object, key);
    if (!rope) continue;
    if (config.rope.local_theta && key == std::string("rope_parameters"))
      read_by_layer_kind(config, *rope, place.at(key));
    else
      config.rope.scaling = RopeReader(config, *rope, place.at(key)).read(config.rope.theta);
  }
}

// transformers 4 reads rope_theta and rope_scaling, transformers 5 rope_parameters.
void write_huggingface_rope(json& out, const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  json with_theta = scaling_json(rope.scaling);
  out["rope_theta"] = rope.theta;
  out["rope_scaling"] = rope.scaling.kind == "none" ? json(nullptr) : with_theta;
  with_theta["rope_theta"] = rope.theta;
  out["rope_parameters"] = with_theta;
  if (!rope.local_theta) return;
  out["rope_local_base_freq"] = *rope.local_theta;
  out["rope_parameters"] = {{"full_attention", with_theta},
                            {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", *rope.local_theta}}}};
}

}  // namespace mw
