// Finds a model's configuration: by name ("qwen3-0.6b", a file of configs/models), Hugging Face repository id ("Qwen/Qwen3-0.6B"), or path
// (a JSON file of our format, a config.json, or a folder that holds one).
#pragma once
#include <string>
#include <vector>

#include "models/model_config.h"

namespace mw {

inline constexpr int64_t kMostConfigBytes = int64_t{1} << 20;

// `folder` is configs/models. A name comes before a path; write ./NAME for a folder called like a model. UserError naming the nearest.
ModelConfig find_model_config(const std::string& name_or_path, const std::string& folder);

ModelConfig load_model_config(const std::string& path);

std::vector<std::string> model_names(const std::string& folder);  // sorted

}  // namespace mw
