#include "checkpoint/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

using nlohmann::json;

constexpr int64_t kMostLayers = 4096, kMostSize = int64_t{1} << 31;

// The keys of one architecture: "llama.block_count" is keys.integer("block_count").
class Keys {
 public:
  explicit Keys(const GgufFiles& files) : files_(files), prefix_(files.header().text("general.architecture") + ".") {}

  int64_t integer(const std::string& key) const { return bounded(key, files_.header().integer(prefix_ + key)); }
  int64_t integer(const std::string& key, int64_t otherwise) const {
    const auto value = files_.header().integer_if_any(prefix_ + key);
    return value ? bounded(key, *value) : otherwise;
  }
  double number(const std::string& key) const { return files_.header().number(prefix_ + key); }
  double number(const std::string& key, double otherwise) const { return files_.header().number_if_any(prefix_ + key).value_or(otherwise); }
  bool has(const std::string& key) const { return files_.header().find(prefix_ + key) != nullptr; }
  bool flag(const std::string& key, bool otherwise) const { return files_.header().flag(prefix_ + key, otherwise); }
  std::string text(const std::string& key) const { return files_.header().text(prefix_ + key); }

  [[noreturn]] void refuse(const std::string& key, const std::string& problem) const {
    throw UserError(printable(files_.path(), 1000) + ": key '" + prefix_ + key + "': " + problem);
  }

  const GgufFiles& files() const { return files_; }

 private:
  int64_t bounded(const std::string& key, int64_t value) const {
    if (value < 0 || value > kMostSize) refuse(key, concat_text("expected 0 to ", kMostSize, ", found ", value));
    return value;
  }

  const GgufFiles& files_;
  std::string prefix_;
};

int64_t num_layers(const Keys& keys) {
  const int64_t count = keys.integer("block_count");
  if (count < 1 || count > kMostLayers) keys.refuse("block_count", concat_text("expected 1 to ", kMostLayers, ", found ", count));
  return count;
}

int64_t num_heads(const Keys& keys) {
  const int64_t count = keys.integer("attention.head_count");
  if (count < 1) keys.refuse("attention.head_count", "expected at least 1");
  return count;
}

const GgufTensor& embedding(const Keys& keys) {
  const GgufTensor* table = keys.files().find("token_embd.weight");
  if (!table || table->shape.size() != 2)
    throw UserError(printable(keys.files().path(), 1000) + ": expected a tensor 'token_embd.weight' [vocabulary, embedding], found " +
                    (table ? shape_text(table->shape) : "none"));
  return *table;
}

// What every class has, and the token ids.
json shared_fields(const Keys& keys, const char* architecture, const char* model_type) {
  const GgufTensor& table = embedding(keys);
  json config{{"architectures", {architecture}},
              {"model_type", model_type},
              {"vocab_size", table.shape[0]},
              {"tie_word_embeddings", keys.files().find("output.weight") == nullptr},
              {"torch_dtype", table.encoding->dtype == DType::kF32   ? "float32"
                              : table.encoding->dtype == DType::kF16 ? "float16"
                                                                     : "bfloat16"}};
  for (const auto& [ours, theirs] :
       {std::pair("bos_token_id", "tokenizer.ggml.bos_token_id"), std::pair("eos_token_id", "tokenizer.ggml.eos_token_id"),
        std::pair("pad_token_id", "tokenizer.ggml.padding_token_id")}) {
    const auto id = keys.files().header().integer_if_any(theirs);
    config[ours] = id && *id >= 0 && *id < table.shape[0] ? json(*id) : json(nullptr);
  }
  return config;
}

bool is_sliding_but_each(int64_t period, int64_t layer) { return (layer + 1) % period != 0; }

json layer_kinds(const Keys& keys, int64_t period) {
  json kinds = json::array();
  for (int64_t layer = 0; layer < num_layers(keys); ++layer)
    kinds.push_back(is_sliding_but_each(period, layer) ? "sliding_attention" : "full_attention");
  return kinds;
}

int64_t head_dim(const Keys& keys) {
  if (keys.has("attention.key_length")) return keys.integer("attention.key_length");
  if (keys.has("rope.dimension_count")) return keys.integer("rope.dimension_count");
  return keys.integer("embedding_length") / num_heads(keys);
}

// rope_freqs.weight holds what each frequency is divided by; only Llama 3's rule makes them (its numbers are not in the file).
json llama3_scaling(const Keys& keys, double high, int64_t original) {
  const std::vector<float> factors = keys.files().values("rope_freqs.weight");
  const double factor = *std::max_element(factors.begin(), factors.end()), low = 1;
  const double theta = keys.number("rope.freq_base", 10000.0);
  const double dim = static_cast<double>(2 * factors.size());
  bool equal = static_cast<int64_t>(factors.size()) * 2 == head_dim(keys) && factor >= 1;
  for (size_t i = 0; equal && i < factors.size(); ++i) {
    const double wave_length = 2 * std::numbers::pi * std::pow(theta, 2 * static_cast<double>(i) / dim);
    const double length = static_cast<double>(original);
    double expected = factor;
    if (wave_length < length / high) {
      expected = 1;
    } else if (wave_length <= length / low) {
      const double smooth = high == low ? 0 : (length / wave_length - low) / (high - low);
      expected = 1 / ((1 - smooth) / factor + smooth);
    }
    equal = std::abs(static_cast<double>(factors[i]) - expected) <= 1e-3 * expected;
  }
  if (!equal) {
    throw UserError(concat_text(printable(keys.files().path(), 1000),
                                ": tensor 'rope_freqs.weight': expected the factors of Llama 3's rope for",
                                " low_freq_factor 1, high_freq_factor ", high, " and original_max_position_embeddings ", original,
                                ", which these are not (their largest is ", factor, ")"));
  }
  return {{"rope_type", "llama3"},
          {"factor", factor},
          {"low_freq_factor", low},
          {"high_freq_factor", high},
          {"original_max_position_embeddings", original}};
}

// rope_theta and rope_scaling, in the spelling that every version of transformers reads.
void add_rope(json& config, const Keys& keys, double theta) {
  config["rope_theta"] = keys.number("rope.freq_base", theta);
  config["rope_scaling"] = nullptr;
  if (keys.files().find("rope_freqs.weight")) {
    config["rope_scaling"] = llama3_scaling(keys, config["model_type"] == "llama4_text" ? 1 : 4, 8192);
    return;
  }
  if (!keys.has("rope.scaling.type")) {
    if (keys.has("rope.scale_linear") && keys.number("rope.scale_linear") != 1)
      config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", keys.number("rope.scale_linear")}};
    return;
  }
  const std::string kind = keys.text("rope.scaling.type");
  if (kind == "none") return;
  if (kind == "linear") {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", keys.number("rope.scaling.factor")}};
  } else if (kind == "yarn") {
    config["rope_scaling"] = {{"rope_type", "yarn"},
                              {"factor", keys.number("rope.scaling.factor")},
                              {"original_max_position_embeddings", keys.integer("rope.scaling.original_context_length")},
                              {"beta_fast", keys.number("rope.scaling.yarn_beta_fast", 32)},
                              {"beta_slow", keys.number("rope.scaling.yarn_beta_slow", 1)}};
  } else {
    keys.refuse("rope.scaling.type", "expected 'none', 'linear' or 'yarn', found " + in_quotes(kind));
  }
}

// The sizes that all families but GPT-2 name alike.
json decoder(const Keys& keys, const char* architecture, const char* model_type, double theta = 10000.0) {
  json config = shared_fields(keys, architecture, model_type);
  config["hidden_size"] = keys.integer("embedding_length");
  config["num_hidden_layers"] = num_layers(keys);
  config["num_attention_heads"] = num_heads(keys);
  config["num_key_value_heads"] = keys.integer("attention.head_count_kv", num_heads(keys));
  config["max_position_embeddings"] = keys.integer("context_length");
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  if (keys.has("feed_forward_length")) config["intermediate_size"] = keys.integer("feed_forward_length");
  config["head_dim"] = head_dim(keys);
  config["attention_bias"] = keys.files().find("blk.0.attn_q.bias") != nullptr;
  config["hidden_act"] = "silu";
  add_rope(config, keys, theta);
  return config;
}

json llama(const Keys& keys) {
  if (keys.integer("expert_count", 0) > 0) {
    json config = decoder(keys, "MixtralForCausalLM", "mixtral");
    config["num_local_experts"] = keys.integer("expert_count");
    config["num_experts_per_tok"] = keys.integer("expert_used_count");
    config["sliding_window"] = nullptr;
    config.erase("attention_bias");
    return config;
  }
  if (keys.has("attention.sliding_window")) {
    json config = decoder(keys, "MistralForCausalLM", "mistral");
    config["sliding_window"] = keys.integer("attention.sliding_window");
    config.erase("attention_bias");
    return config;
  }
  json config = decoder(keys, "LlamaForCausalLM", "llama");
  config["mlp_bias"] = keys.files().find("blk.0.ffn_gate.bias") != nullptr;
  return config;
}

json llama4(const Keys& keys) {
  json config = decoder(keys, "Llama4ForCausalLM", "llama4_text", 500000.0);
  const int64_t experts = keys.integer("expert_count"), layers = num_layers(keys);
  config["intermediate_size_mlp"] = keys.integer("feed_forward_length");
  config["intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["num_local_experts"] = experts;
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["interleave_moe_layer_step"] = keys.integer("interleave_moe_layer_step");
  json moe_layers = json::array(), rope_layers = json::array();
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (keys.files().find("blk." + std::to_string(layer) + ".ffn_gate_inp.weight")) moe_layers.push_back(layer);
    rope_layers.push_back((layer + 1) % 4 == 0 ? 0 : 1);
  }
  config["moe_layers"] = moe_layers;
  config["no_rope_layers"] = rope_layers;  // the published spelling: 1 where a layer has rope
  config["use_qk_norm"] = experts != 128;  // llama.cpp's rule: Scout has it, Maverick does not
  config["attention_chunk_size"] = 8192;
  config["attn_temperature_tuning"] = true;
  config["floor_scale"] = 8192;
  config["attn_scale"] = 0.1;
  return config;
}

json qwen3(const Keys& keys) {
  json config = decoder(keys, "Qwen3ForCausalLM", "qwen3", 1e6);
  config["use_sliding_window"] = false;
  config["sliding_window"] = nullptr;
  return config;
}

json qwen3_moe(const Keys& keys) {
  json config = decoder(keys, "Qwen3MoeForCausalLM", "qwen3_moe", 1e6);
  config["use_sliding_window"] = false;
  config["sliding_window"] = nullptr;
  config["num_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["moe_intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["norm_topk_prob"] = true;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = json::array();
  return config;
}

json gemma(const Keys& keys) {
  json config = decoder(keys, "GemmaForCausalLM", "gemma");
  config["hidden_act"] = config["hidden_activation"] = "gelu_pytorch_tanh";
  return config;
}

// 1 / sqrt of this scales the scores. Not in the file: of the largest of each generation it is the share of a head in the embedding.
int64_t query_scalar(const Keys& keys, int64_t layers_of_largest) {
  if (num_layers(keys) != layers_of_largest) return head_dim(keys);
  return keys.integer("embedding_length") / num_heads(keys);
}

json gemma2(const Keys& keys) {
  json config = decoder(keys, "Gemma2ForCausalLM", "gemma2");
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["attn_logit_softcapping"] = keys.number("attn_logit_softcapping", 50);
  config["final_logit_softcapping"] = keys.number("final_logit_softcapping", 30);
  config["sliding_window"] = keys.integer("attention.sliding_window", 4096);
  config["layer_types"] = layer_kinds(keys, 2);
  config["query_pre_attn_scalar"] = query_scalar(keys, 46);
  return config;
}

json gemma3(const Keys& keys) {
  json config = decoder(keys, "Gemma3ForCausalLM", "gemma3_text", 1e6);
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 10000);
  config["sliding_window"] = keys.integer("attention.sliding_window");
  config["layer_types"] = layer_kinds(keys, 6);
  config["query_pre_attn_scalar"] = query_scalar(keys, 62);
  config["attn_logit_softcapping"] = nullptr;
  config["final_logit_softcapping"] = keys.has("final_logit_softcapping") ? json(keys.number("final_logit_softcapping")) : json(nullptr);
  return config;
}

json deepseek2(const Keys& keys) {
  const bool sigmoid = keys.integer("expert_gating_func", 1) == 2;
  json config = decoder(keys, sigmoid ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM", sigmoid ? "deepseek_v3" : "deepseek_v2");
  const int64_t rope_dim = keys.integer("rope.dimension_count");
  const int64_t key = keys.integer(keys.has("attention.key_length_mla") ? "attention.key_length_mla" : "attention.key_length");
  if (key <= rope_dim)
    keys.refuse("attention.key_length", concat_text("expected more than rope.dimension_count ", rope_dim, ", found ", key));
  config["num_key_value_heads"] = config["num_attention_heads"];  // the file counts the one latent head of the compressed cache
  config.erase("head_dim");
  config["q_lora_rank"] = keys.has("attention.q_lora_rank") ? json(keys.integer("attention.q_lora_rank")) : json(nullptr);
  config["kv_lora_rank"] = keys.integer("attention.kv_lora_rank");
  config["qk_rope_head_dim"] = rope_dim;
  config["qk_nope_head_dim"] = key - rope_dim;
  config["v_head_dim"] = keys.integer(keys.has("attention.value_length_mla") ? "attention.value_length_mla" : "attention.value_length");
  config["first_k_dense_replace"] = keys.integer("leading_dense_block_count");
  config["moe_layer_freq"] = 1;
  config["moe_intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["n_routed_experts"] = keys.integer("expert_count");
  config["n_shared_experts"] = keys.integer("expert_shared_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["routed_scaling_factor"] = keys.number("expert_weights_scale", 1);
  config["norm_topk_prob"] = keys.flag("expert_weights_norm", false);
  const int64_t groups = keys.integer("expert_group_count", 1);
  config["n_group"] = groups;
  config["topk_group"] = keys.integer("expert_group_used_count", 1);
  config["scoring_func"] = sigmoid ? "sigmoid" : "softmax";
  config["topk_method"] = sigmoid ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy";
  if (sigmoid) config["rope_interleave"] = true;
  if (json& scaling = config["rope_scaling"]; scaling.is_object() && scaling["rope_type"] == "yarn") {
    const double all = keys.number("rope.scaling.yarn_log_multiplier", 0) * 10;  // the file holds a tenth of mscale_all_dim
    scaling["mscale"] = scaling["mscale_all_dim"] = std::round(all * 1e6) / 1e6;
  }
  return config;
}

json gpt_oss(const Keys& keys) {
  json config = decoder(keys, "GptOssForCausalLM", "gpt_oss", 150000.0);
  config["intermediate_size"] = keys.integer("expert_feed_forward_length");
  config["num_local_experts"] = keys.integer("expert_count");
  config["num_experts_per_tok"] = keys.integer("expert_used_count");
  config["sliding_window"] = keys.integer("attention.sliding_window");
  config["layer_types"] = layer_kinds(keys, 2);
  config["swiglu_limit"] = 7.0;
  if (json& scaling = config["rope_scaling"]; scaling.is_object()) scaling["truncate"] = false;
  return config;
}

json gpt2(const Keys& keys) {
  json config = shared_fields(keys, "GPT2LMHeadModel", "gpt2");
  // The head is written a second time although it is the embedding table, so its presence says nothing.
  config["tie_word_embeddings"] = true;
  config["n_embd"] = keys.integer("embedding_length");
  config["n_layer"] = num_layers(keys);
  config["n_head"] = num_heads(keys);
  config["n_positions"] = config["n_ctx"] = keys.integer("context_length");
  config["n_inner"] = keys.integer("feed_forward_length");
  config["layer_norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  config["activation_function"] = "gelu_new";
  return config;
}

struct Architecture {
  const char* name;
  json (*config)(const Keys&);
};
constexpr Architecture kArchitectures[] = {
    {"llama", llama},   {"llama4", llama4}, {"qwen3", qwen3},         {"qwen3moe", qwen3_moe}, {"gemma", gemma},
    {"gemma2", gemma2}, {"gemma3", gemma3}, {"deepseek2", deepseek2}, {"gpt-oss", gpt_oss},    {"gpt2", gpt2},
};

}  // namespace

const std::vector<std::string>& gguf_architectures() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Architecture& architecture : kArchitectures) all.emplace_back(architecture.name);
    return all;
  }();
  return names;
}

void check_gguf_architecture(const GgufFiles& files) {
  const std::string name = files.header().text("general.architecture");
  const std::vector<std::string>& known = gguf_architectures();
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  std::string listed;
  for (const std::string& each : known) listed += (listed.empty() ? "" : ", ") + each;
  throw UserError(printable(files.path(), 1000) + ": key 'general.architecture': expected one of " + listed + ", found " + in_quotes(name) +
                  (name.size() < 200 ? did_you_mean(name, known) : ""));
}

json gguf_config(const GgufFiles& files) {
  check_gguf_architecture(files);
  const std::string name = files.header().text("general.architecture");
  return std::find_if(std::begin(kArchitectures), std::end(kArchitectures), [&](const Architecture& each) { return each.name == name; })
      ->config(Keys(files));
}

}  // namespace mw
