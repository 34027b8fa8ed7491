// Which layers have a window, chunks or rope, in the config.json of transformers.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace mw {

struct JsonPlace;

// What sliding_window, layer_types, sliding_window_pattern, use_sliding_window and max_window_layers say together.
void read_huggingface_window(ModelConfig& config, const nlohmann::json& object, const JsonPlace& place);
void write_huggingface_window(nlohmann::json& out, const ModelConfig& config);

// Llama 4: layer_types, no_rope_layers, no_rope_layer_interval, attention_chunk_size.
void read_huggingface_chunks(ModelConfig& config, const nlohmann::json& object, const JsonPlace& place);
void write_huggingface_chunks(nlohmann::json& out, const ModelConfig& config);

}  // namespace mw
