#include "config/huggingface_vision.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "config/huggingface_tables.h"
#include "config/model_config_json.h"

namespace mw {
namespace {

using nlohmann::json;

struct VisionTable {
  HuggingFaceFields fields;  // Hugging Face key -> field of ModelConfig::vision
  VisionConfig defaults;
  std::vector<std::string> without_meaning{};
  std::map<std::string, json> always{};
};

const HuggingFaceFields& encoder_keys() {
  static const HuggingFaceFields keys{{"hidden_size", "vision.hidden_dim"},       {"intermediate_size", "vision.mlp_dim"},
                                      {"num_hidden_layers", "vision.num_layers"}, {"num_attention_heads", "vision.num_heads"},
                                      {"num_channels", "vision.channels"},        {"image_size", "vision.image_size"},
                                      {"patch_size", "vision.patch_size"}};
  return keys;
}

// SiglipVisionModel without its pooling head, as Gemma 3 uses it.
VisionTable siglip_table() {
  VisionTable table;
  table.fields = encoder_keys();
  table.fields["layer_norm_eps"] = "vision.norm_epsilon";
  VisionConfig& v = table.defaults;
  v.kind = "siglip";
  v.image_size = 224;
  v.patch_size = 16;
  v.hidden_dim = 768;
  v.mlp_dim = 3072;
  v.num_layers = v.num_heads = 12;
  v.tokens_per_image = 256;
  v.norm_epsilon = 1e-6;
  table.always = {{"model_type", "siglip_vision_model"}, {"hidden_act", "gelu_pytorch_tanh"}, {"vision_use_head", false}};
  return table;
}

VisionTable llama4_table() {
  VisionTable table;
  table.fields = encoder_keys();
  table.fields["projector_input_dim"] = "vision.projector_input_dim";
  table.fields["projector_output_dim"] = "vision.projector_output_dim";
  table.fields["norm_eps"] = "vision.norm_epsilon";
  VisionConfig& v = table.defaults;
  v.kind = "llama4";
  v.image_size = 448;
  v.patch_size = 14;
  v.hidden_dim = 768;
  v.mlp_dim = 5632;
  v.num_layers = 34;
  v.num_heads = 16;
  v.projector_input_dim = v.projector_output_dim = 4096;
  v.norm_epsilon = 1e-5;
  table.without_meaning = {"projector_dropout", "vision_feature_layer", "vision_feature_select_strategy"};
  table.always = {{"model_type", "llama4_vision_model"},
                  {"hidden_act", "gelu"},
                  {"multi_modal_projector_bias", false},
                  {"pixel_shuffle_ratio", 0.5},
                  {"rope_theta", 10000.0}};
  return table;
}

const VisionTable& table_of(const std::string& family) {
  static const VisionTable siglip = siglip_table(), llama4 = llama4_table();
  return family == "gemma3" ? siglip : llama4;
}

bool contains(const std::vector<std::string>& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

void refuse_unknown(const json& object, std::vector<std::string> known, const JsonPlace& place) {
  for (const char* key : {"dtype", "torch_dtype", "model_type", "architectures"}) known.emplace_back(key);
  for (const auto& [key, value] : object.items()) {
    if (!contains(known, key) && !contains(huggingface_keys_without_meaning(), key)) refuse_key(place, key, known);
  }
}

void read_encoder(ModelConfig& config, const json& object, const JsonPlace& place) {
  const VisionTable& table = table_of(config.family);
  std::vector<std::string> known = table.without_meaning;
  for (const auto& [key, field] : table.fields) known.push_back(key);
  for (const auto& [key, value] : table.always) known.push_back(key);
  for (const char* key : {"vision_output_dim", "rope_parameters"}) {
    if (config.family == "llama4") known.emplace_back(key);
  }
  refuse_unknown(json_object(object, place), known, place);
  config.vision = table.defaults;
  for (const auto& [key, value] : table.always) {
    if (const json* found = present_json(object, key); found && *found != value) refuse_json(place.at(key), value.dump(), *found);
  }
  for (const auto& [key, field] : table.fields) {
    if (const json* value = present_json(object, key)) set_model_field(config, field, *value, place.at(key));
  }
  VisionConfig& vision = *config.vision;
  if (config.family != "llama4") return;
  const int64_t side = vision.image_size / vision.patch_size;
  vision.tokens_per_image = side * side / 4;
  if (const json* value = present_json(object, "vision_output_dim")) {
    const JsonPlace at = place.at("vision_output_dim");
    if (json_integer(*value, at, 1, int64_t{1} << 24) != vision.projector_output_dim)
      refuse_json(at, concat_text("projector_output_dim, ", vision.projector_output_dim), *value);
  }
  if (const json* rope = present_json(object, "rope_parameters")) {
    const json expected{{"rope_theta", 10000.0}, {"rope_type", "default"}};
    if (*rope != expected) refuse_json(place.at("rope_parameters"), expected.dump(), *rope);
  }
}

}  // namespace

void read_huggingface_vision(ModelConfig& config, const json& object, const JsonPlace& place) {
  refuse_unknown(
      object,
      {"text_config", "vision_config", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "mm_tokens_per_image",
       "boi_token_index", "eoi_token_index", "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id", "quantization_config"},
      place);
  const json none = json::object();
  const json* vision = present_json(object, "vision_config");
  read_encoder(config, vision ? *vision : none, place.at("vision_config"));
  if (const json* tokens = present_json(object, "mm_tokens_per_image"))
    set_model_field(config, "vision.tokens_per_image", *tokens, place.at("mm_tokens_per_image"));
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (present_json(object, key)) set_model_field(config, key, object.at(key), place.at(key));
  }
  if (const json* tied = present_json(object, "tie_word_embeddings"))
    set_model_field(config, "tie_embeddings", *tied, place.at("tie_word_embeddings"));
}

json with_huggingface_vision(const json& text, const ModelConfig& config) {
  const VisionTable& table = table_of(config.family);
  const json ours = json::parse(model_config_text(config));
  json out{{"model_type", config.hf_model_type}, {"architectures", {config.hf_architecture}}};
  for (const char* key :
       {"dtype", "torch_dtype", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range"})
    out[key] = text.at(key);
  out["text_config"] = text;
  out["text_config"].erase("architectures");
  json encoder = json::object();
  for (const auto& [key, value] : table.always) encoder[key] = value;
  for (const auto& [key, field] : table.fields) encoder[key] = ours.at("vision").at(field.substr(field.find('.') + 1));
  if (config.family == "gemma3") out["mm_tokens_per_image"] = config.vision->tokens_per_image;
  if (config.family == "llama4") encoder["vision_output_dim"] = config.vision->projector_output_dim;
  out["vision_config"] = encoder;
  return out;
}

}  // namespace mw
