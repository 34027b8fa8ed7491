// The multimodal classes' config.json: text_config and vision_config inside an outer object (Gemma 3, Llama 4).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace mw {

struct JsonPlace;

// Of `object`, the whole file; its text_config is read before, as that of the text class.
void read_huggingface_vision(ModelConfig& config, const nlohmann::json& object, const JsonPlace& place);

// `text` is the text class's object; gives the whole file.
nlohmann::json with_huggingface_vision(const nlohmann::json& text, const ModelConfig& config);

}  // namespace mw
