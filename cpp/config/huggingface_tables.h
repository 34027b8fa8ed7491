// What the config.json of each family is made of: one table per family, and the keys that mean nothing here.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace mw {

struct HuggingFaceTable {
  std::string family;
  std::map<std::string, std::string> fields;  // Hugging Face key -> our field
  ModelConfig defaults;                       // what the transformers class assumes for absent keys
};

// InternalError when the family has none.
const HuggingFaceTable& huggingface_table(const std::string& family);

// Keys that depend on each other and are read by code: rope, window, dtype, activation, bias.
const std::vector<std::string>& huggingface_keys_read_together();

// Keys that say nothing about what the model computes: caching, reports, defaults of text generation, other kinds of training.
const std::vector<std::string>& huggingface_keys_without_meaning();

// hidden_act -> our activation.
const std::map<std::string, std::string>& huggingface_activations();

}  // namespace mw
