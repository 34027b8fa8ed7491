// Rope in the config.json of transformers: rope_theta and rope_scaling (4.x), rope_parameters (5.x), and Gemma 3's two kinds of layers.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "models/model_config.h"

namespace mw {

struct JsonPlace;

// rope_theta and rope_local_base_freq are fields of their own, read before.
void read_huggingface_rope(ModelConfig& config, const nlohmann::json& object, const JsonPlace& place);
void write_huggingface_rope(nlohmann::json& out, const ModelConfig& config);

}  // namespace mw
