// What the config.json of each family is made of: one table per family, in files by kinship, and the keys that mean nothing here.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/json_fields.h"
#include "models/model_config.h"

namespace mw {

using HuggingFaceFields = std::map<std::string, std::string>;  // Hugging Face key -> our field

struct HuggingFaceTable {
  std::string family;
  HuggingFaceFields fields;
  HuggingFaceFields aliases{};  // other spellings of them: read, not written
  ModelConfig defaults{};       // what the transformers class assumes for absent keys; num_kv_heads and head_dim of 0 follow from others
  std::vector<std::string> required{"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"};
  std::string activation_key = "hidden_act";
  std::vector<std::string> read_together{};        // keys that `read` reads
  std::vector<std::string> without_meaning{};      // for this family alone
  std::map<std::string, nlohmann::json> always{};  // keys that change what the model computes, and the one value that exists here
  // What depends on several keys; after the fields, on an object that has only known keys.
  void (*read)(ModelConfig&, const nlohmann::json&, const JsonPlace&) = nullptr;
  void (*write)(nlohmann::json&, const ModelConfig&) = nullptr;
};

// InternalError when the family has none.
const HuggingFaceTable& huggingface_table(const std::string& family);

std::vector<HuggingFaceTable> llama_tables();  // llama, mistral, qwen3, mixtral, qwen3_moe, llama4
std::vector<HuggingFaceTable> gemma_tables();
std::vector<HuggingFaceTable> deepseek_tables();
std::vector<HuggingFaceTable> gpt_tables();  // gpt_oss, gpt3

// The keys of every class with rope and rms norms; `more` is added.
HuggingFaceFields decoder_keys(const HuggingFaceFields& more = {});

// Keys that say nothing about what the model computes: caching, reports, defaults of text generation, other kinds of training.
const std::vector<std::string>& huggingface_keys_without_meaning();

// The value of a key, or nullptr when it is absent or null.
const nlohmann::json* present_json(const nlohmann::json& object, const std::string& key);

}  // namespace mw
