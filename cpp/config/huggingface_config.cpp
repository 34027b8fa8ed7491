#include "config/huggingface_config.h"

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "config/huggingface_rope.h"
#include "config/huggingface_tables.h"
#include "config/huggingface_vision.h"
#include "config/json_fields.h"
#include "config/model_config_json.h"
#include "models/registry.h"

namespace mw {
namespace {

using nlohmann::json;

bool contains(const std::vector<std::string>& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

struct FoundFamily {
  const ModelFamily* family;
  bool multimodal;
};

FoundFamily family_of(const json& object, const JsonPlace& place) {
  const bool by_class = present_json(object, "architectures") != nullptr;
  std::string wanted;
  JsonPlace where = place.at("model_type");
  if (by_class) {
    where = place.at("architectures");
    const json& names = object.at("architectures");
    if (!names.is_array() || names.size() != 1) refuse_json(where, "a list of one class name", names);
    wanted = json_text(names[0], where);
  } else {
    wanted = json_text(object.value("model_type", json(nullptr)), where);
  }
  std::vector<std::string> known;
  std::string listed;
  for (const ModelFamily& family : model_families()) {
    for (const bool multimodal : {false, true}) {
      const std::string& architecture = multimodal ? family.hf_multimodal_architecture : family.hf_architecture;
      if (architecture.empty()) continue;
      known.push_back(by_class ? architecture : multimodal ? family.hf_multimodal_model_type : family.hf_model_type);
      if (known.back() == wanted) return {&family, multimodal};
      listed += (listed.empty() ? "" : ", ") + known.back();
    }
  }
  throw UserError(where.text() + ": expected one of " + listed + ", found " + in_quotes(wanted) + did_you_mean(wanted, known));
}

// Weights that are multiplied out on import: DeepSeek's FP8 blocks and GPT-OSS's MXFP4 experts. The files say the rest themselves.
void check_quantization(const json& value, const JsonPlace& place, const ModelFamily& family) {
  const std::string expected = "weights in float32, bfloat16 or float16, or quant_method 'fp8' (e4m3 with weight_block_size)" +
                               std::string(family.name == "gpt_oss" ? " or 'mxfp4'" : "");
  const json* method = value.is_object() ? present_json(value, "quant_method") : nullptr;
  if (!method) refuse_json(place, expected, value);
  if (family.name == "gpt_oss" && *method == "mxfp4") return;
  if (*method != "fp8") refuse_json(place.at("quant_method"), expected, *method);
  if (const json* format = present_json(value, "fmt"); format && *format != "e4m3") refuse_json(place.at("fmt"), "'e4m3'", *format);
  if (const json* scheme = present_json(value, "activation_scheme"); scheme && *scheme != "dynamic")
    refuse_json(place.at("activation_scheme"), "'dynamic'", *scheme);
  const json* block = present_json(value, "weight_block_size");
  const bool whole = block && block->is_array() && block->size() == 2 && std::all_of(block->begin(), block->end(), [](const json& size) {
                       return size.is_number_integer() && size > 0 && size <= 65536;
                     });
  if (!whole) refuse_json(place.at("weight_block_size"), "two sizes, such as [128, 128]", block ? *block : json(nullptr));
}

// Read by this file, for every family; rope's only where there is rope.
std::vector<std::string> common_keys(const HuggingFaceTable& table, const ModelFamily& family) {
  std::vector<std::string> keys{"model_type", "architectures", "dtype", "torch_dtype", "quantization_config"};
  if (!table.activation_key.empty()) keys.push_back(table.activation_key);
  if (family.has_rope) {
    for (const char* key : {"rope_scaling", "rope_parameters", "attention_bias"}) keys.emplace_back(key);
  }
  return keys;
}

void refuse_unknown_keys(const json& object, const HuggingFaceTable& table, const ModelFamily& family, const JsonPlace& place) {
  std::vector<std::string> known = common_keys(table, family);
  known.insert(known.end(), table.read_together.begin(), table.read_together.end());
  for (const HuggingFaceFields* fields : {&table.fields, &table.aliases}) {
    for (const auto& [key, field] : *fields) known.push_back(key);
  }
  for (const auto& [key, value] : table.always) known.push_back(key);
  for (const auto& [key, value] : object.items()) {
    if (contains(known, key) || contains(table.without_meaning, key) || contains(huggingface_keys_without_meaning(), key)) continue;
    refuse_key(place, key, known);
  }
  for (const auto& [key, value] : table.always) {
    const json* found = present_json(object, key);
    if (!found || *found == value) continue;
    throw UserError(place.at(key).text() + ": expected " + value.dump() + ", found " +
                    printable(found->dump(-1, ' ', false, json::error_handler_t::replace), 100) + ", which changes what " +
                    family.hf_architecture + " computes and does not exist here");
  }
  if (const json* quantization = present_json(object, "quantization_config"))
    check_quantization(*quantization, place.at("quantization_config"), family);
}

void require_sizes(const json& object, const HuggingFaceTable& table, const JsonPlace& place) {
  for (const std::string& key : table.required) {
    bool found = present_json(object, key) != nullptr;
    for (const auto& [alias, field] : table.aliases) found = found || (field == table.fields.at(key) && present_json(object, alias));
    if (!found) throw UserError(place.text() + ": the key '" + key + "' is missing");
  }
}

// Keys whose null is a choice; the null of any other key is the class's default.
bool null_means_none(const std::string& key) { return key.ends_with("_token_id") || key.ends_with("_softcapping") || key == "q_lora_rank"; }

// hidden_act -> our activation.
const std::vector<std::pair<std::string, std::string>>& activations() {
  static const std::vector<std::pair<std::string, std::string>> names{{"silu", "silu"},          {"swish", "silu"},
                                                                      {"gelu", "gelu_erf"},      {"gelu_pytorch_tanh", "gelu_tanh"},
                                                                      {"gelu_new", "gelu_tanh"}, {"relu", "relu"}};
  return names;
}

std::string our_activation(const json& value, const JsonPlace& place) {
  std::vector<std::string> known;
  for (const auto& [name, ours] : activations()) known.push_back(name);
  const std::string chosen = json_choice(value, place, known);
  return activations()[static_cast<size_t>(std::find(known.begin(), known.end(), chosen) - known.begin())].second;
}

void read_activation(ModelConfig& config, const json& object, const HuggingFaceTable& table, const JsonPlace& place) {
  const bool gemma = config.family.starts_with("gemma");
  const auto read = [&](const std::string& key) {
    const std::string ours = our_activation(object.at(key), place.at(key));
    // Gemma's early files say gelu where they mean its tanh form; transformers knows.
    return gemma && key == "hidden_act" && ours == "gelu_erf" ? "gelu_tanh" : ours;
  };
  if (!table.activation_key.empty() && present_json(object, table.activation_key)) config.activation = read(table.activation_key);
  if (!gemma) return;
  const std::string other = table.activation_key == "hidden_act" ? "hidden_activation" : "hidden_act";
  if (present_json(object, other) && read(other) != config.activation)
    refuse_json(place.at(other), "the same activation as in " + table.activation_key, object.at(other));
}

void read_dtype(ModelConfig& config, const json& object, const JsonPlace& place) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (const json* dtype = present_json(object, key); dtype && *dtype != "auto")
      config.dtype = parse_dtype(json_choice(*dtype, place.at(key), {"float32", "bfloat16", "float16"}));
  }
}

// ".../qwen3-tiny/config.json" is called after its folder.
std::string model_name(const std::string& source) {
  std::string name = source;
  if (name.ends_with("/config.json")) name.resize(name.size() - 12);
  name = name.substr(name.find_last_of('/') + 1);
  return name.empty() ? source : name;
}

void derive_head_dim(ModelConfig& config, const JsonPlace& place) {
  if (config.head_dim > 0) return;
  if (config.embedding_dim % config.num_query_heads != 0) {
    throw UserError(concat_text(place.text(), ": head_dim is missing and hidden_size (", config.embedding_dim,
                                ") is not a multiple of num_attention_heads (", config.num_query_heads, ")"));
  }
  config.head_dim = config.embedding_dim / config.num_query_heads;
}

ModelConfig read_text_config(const json& object, const ModelFamily& family, const JsonPlace& place) {
  const HuggingFaceTable& table = huggingface_table(family.name);
  refuse_unknown_keys(json_object(object, place), table, family, place);
  require_sizes(object, table, place);
  ModelConfig config = table.defaults;
  config.family = family.name;
  for (const HuggingFaceFields* fields : {&table.aliases, &table.fields}) {
    for (const auto& [key, field] : *fields) {
      if (present_json(object, key) || (object.contains(key) && null_means_none(key)))
        set_model_field(config, field, object.at(key), place.at(key));
    }
  }
  if (family.one_mlp_width) config.mlp_dim = config.moe_mlp_dim;
  if (config.num_kv_heads == 0) config.num_kv_heads = config.num_query_heads;
  derive_head_dim(config, place);
  if (family.has_rope) read_huggingface_rope(config, object, place);
  read_activation(config, object, table, place);
  if (const json* bias = family.has_rope ? present_json(object, "attention_bias") : nullptr)
    config.bias.qkv = config.bias.attention_output = json_flag(*bias, place.at("attention_bias"));
  read_dtype(config, object, place);
  if (config.qk_norm) config.qk_norm->epsilon = config.norm_epsilon;
  if (table.read) table.read(config, object, place);
  return config;
}

}  // namespace

ModelConfig model_config_from_huggingface(const json& object, const std::string& source) {
  const JsonPlace place{source, ""};
  const auto [family, multimodal] = family_of(json_object(object, place), place);
  if (multimodal && !present_json(object, "text_config")) throw UserError(source + ": the key 'text_config' is missing");
  ModelConfig config =
      multimodal ? read_text_config(object.at("text_config"), *family, place.at("text_config")) : read_text_config(object, *family, place);
  if (multimodal) {
    read_huggingface_vision(config, object, place);
    read_dtype(config, object, place);
    if (const json* quantization = present_json(object, "quantization_config"))
      check_quantization(*quantization, place.at("quantization_config"), *family);
  }
  config.name = model_name(source);
  check_model_config(config);
  return config;
}

std::string our_field_name(const std::string& family, const std::string& huggingface_name) {
  const HuggingFaceTable& table = huggingface_table(family);
  for (const HuggingFaceFields* fields : {&table.fields, &table.aliases}) {
    if (const auto found = fields->find(huggingface_name); found != fields->end()) return found->second;
  }
  return huggingface_name;
}

std::string huggingface_dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF16:
      return "float16";
    default:
      throw UserError("weights are stored as float32, bfloat16 or float16, not as " + std::string(dtype_name(dtype)));
  }
}

namespace {

// Ids beyond the vocabulary (a published model's, kept while vocab_size was overridden) would only make transformers warn.
void write_tokens(json& out, const ModelConfig& config) {
  const auto token = [&](std::optional<int64_t> id) { return id && *id < config.vocab_size ? json(*id) : json(nullptr); };
  out["bos_token_id"] = token(config.bos_token_id);
  out["pad_token_id"] = token(config.pad_token_id);
  json eos = json::array();
  for (const int64_t id : config.eos_token_ids) {
    if (id < config.vocab_size) eos.push_back(id);
  }
  if (eos.empty())
    eos = nullptr;
  else if (eos.size() == 1)
    eos = json(eos[0]);
  out["eos_token_id"] = eos;
}

void write_activation(json& out, const ModelConfig& config, const std::string& key) {
  if (key.empty()) return;
  if (config.family == "gemma" && config.activation == "gelu_erf") {
    throw UserError("model '" + config.name + "': activation is 'gelu_erf', which GemmaForCausalLM cannot express; it takes 'gelu' for " +
                    "'gelu_tanh'");
  }
  for (const auto& [name, ours] : activations()) {
    if (ours != config.activation) continue;
    out[key] = name == "gelu_pytorch_tanh" && config.family == "gpt3" ? "gelu_new" : name;
    return;
  }
}

// The table's fields as our own format has them; what is absent there is left out, but for a null that is a choice.
void write_fields(json& out, const ModelConfig& config, const HuggingFaceFields& fields) {
  const json ours = json::parse(model_config_text(config));
  for (const auto& [key, field] : fields) {
    const json* value = &ours;
    for (size_t begin = 0; value && begin <= field.size();) {
      const size_t end = std::min(field.find('.', begin), field.size());
      value = present_json(*value, field.substr(begin, end - begin));
      begin = end + 1;
    }
    if (value || null_means_none(key)) out[key] = value ? *value : json(nullptr);
  }
}

}  // namespace

std::string huggingface_config_text(const ModelConfig& config, DType dtype) {
  const ModelFamily& family = model_family(config.family);
  ModelConfig plain = config;
  plain.attention_scale.reset();
  if (!family.has_attention_scale && config.softmax_scale() != plain.softmax_scale()) {
    throw UserError(concat_text("model '", config.name, "': attention_scale is ", *config.attention_scale, ", which ",
                                config.hf_architecture, " cannot express; it always has head_dim^-0.5"));
  }
  const HuggingFaceTable& table = huggingface_table(config.family);
  json out{{"model_type", family.hf_model_type}, {"attention_dropout", 0.0}, {"initializer_range", 0.02}, {"use_cache", true}};
  out["architectures"] = std::vector<std::string>{family.hf_architecture};
  out["torch_dtype"] = out["dtype"] = huggingface_dtype_name(dtype);
  write_fields(out, config, table.fields);
  write_activation(out, config, table.activation_key);
  write_tokens(out, config);
  if (family.has_attention_bias) out["attention_bias"] = config.bias.qkv;
  write_huggingface_rope(out, config);
  if (table.write) table.write(out, config);
  return (config.vision ? with_huggingface_vision(out, config) : out).dump(2) + "\n";
}

}  // namespace mw
