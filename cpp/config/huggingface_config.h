// ModelConfig from and to the config.json of transformers, in its old spelling (rope_theta, rope_scaling, torch_dtype) and its new one
// (rope_parameters, dtype).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "models/model_config.h"

namespace mw {

// Strict: a key that we do not know is a UserError; keys without meaning for us (use_cache, transformers_version ...) are a list. An
// absent key has the default of the transformers class, but sizes must be there.
ModelConfig model_config_from_huggingface(const nlohmann::json& object, const std::string& source);

// The config.json of `config` with weights stored as `dtype`; opens with AutoModelForCausalLM of transformers 4 and 5.
std::string huggingface_config_text(const ModelConfig& config, DType dtype);

// "num_hidden_layers" -> "num_layers"; a name that is not in the family's table is given back.
std::string our_field_name(const std::string& family, const std::string& huggingface_name);

// kBF16 -> "bfloat16".
std::string huggingface_dtype_name(DType dtype);

}  // namespace mw
