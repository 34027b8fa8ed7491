// ModelConfig as JSON in our own format, the one of configs/models/*.json.
//
//   {"family": "qwen3", "embedding_dim": 1024, ..., "rope": {"theta": 1e6}, "qk_norm": {"epsilon": 1e-6}, "sliding_window": null}
//
// Reading is strict: an unknown key, a wrong type or a number out of range is a UserError with place, expectation and nearest key.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/model_config.h"

namespace mw {

struct JsonPlace;

// `source` names the text in errors and gives the model its name. Our own format or, when it has model_type or architectures, a
// Hugging Face config.json (config/huggingface_config.h). The result is checked.
ModelConfig parse_model_config(std::string_view text, const std::string& source);
ModelConfig model_config_from_json(const nlohmann::json& object, const std::string& source);

// Sets single fields, which may be nested objects ({"rope": {"theta": 1e6}}), dotted names ("rope.theta") or Hugging Face's names
// ("num_hidden_layers"); null resets a field that may be absent. The result is checked; on an error `config` is as before.
void override_model_config(ModelConfig& config, const nlohmann::json& overrides, const std::string& source = "overrides");

std::string model_config_text(const ModelConfig& config);

// Sets one field, dotted for a part of an object ("rope.theta"); `place` is where its value stands. Checks the value alone.
void set_model_field(ModelConfig& config, const std::string& field, const nlohmann::json& value, const JsonPlace& place);
std::vector<std::string> model_field_names();

}  // namespace mw
