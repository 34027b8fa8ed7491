// The sizes and choices that make one model of a family. Fields are named as in configs/models/*.json; cpp/config reads and writes
// them, check_model_config says whether they fit together.
//
//   ModelConfig config = find_model_config("qwen3-0.6b", folder);   // config/model_lookup.h
//   config.num_layers = 2;
//   check_model_config(config);
//
// A field that only a later family needs (moe, mla, softcaps, vision ...) is added here together with that family.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace mw {

struct RopeScaling {
  std::string kind = "none";  // "none", "linear", "llama3"
  double factor = 1.0;
  double low_frequency_factor = 1.0;                // llama3
  double high_frequency_factor = 4.0;               // llama3
  int64_t original_max_position_embeddings = 8192;  // llama3
  bool operator==(const RopeScaling&) const = default;
};

struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling;
  std::string pair_layout_in_hf_weights = "half_split";  // or "interleaved"
  bool operator==(const RopeConfig&) const = default;
};

// RMSNorm of every query and key head before rope (Qwen3).
struct QkNorm {
  double epsilon = 1e-6;
  bool operator==(const QkNorm&) const = default;
};

struct BiasConfig {
  bool qkv = false;
  bool attention_output = false;
  bool mlp = false;
  bool operator==(const BiasConfig&) const = default;
};

struct ModelConfig {
  std::string name{};             // "qwen3-0.6b"; a folder's or file's name when it came from there
  std::string family = "llama";   // a row of models/registry.h
  std::string hf_repo{};          // "Qwen/Qwen3-0.6B"; "" without a published model
  std::string hf_architecture{};  // "LlamaForCausalLM"
  std::string hf_model_type{};    // "llama"

  int64_t embedding_dim = 0;
  int64_t mlp_dim = 0;
  int64_t num_layers = 0;
  int64_t num_query_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;    // of its own: num_query_heads * head_dim need not be embedding_dim
  int64_t vocab_size = 0;  // rows of the embedding table
  int64_t max_position_embeddings = 2048;
  std::string activation = "silu";  // "silu", "gelu_tanh", "gelu_erf", "relu"
  double norm_epsilon = 1e-5;
  std::optional<QkNorm> qk_norm{};
  std::optional<double> attention_scale{};  // absent: 1 / sqrt(head_dim)
  RopeConfig rope;
  bool tie_embeddings = false;  // the embedding table is the output head too
  int64_t sliding_window = 0;   // > 0: query i sees keys j with i - window < j <= i, in every layer
  BiasConfig bias;

  std::optional<int64_t> bos_token_id{};
  std::vector<int64_t> eos_token_ids{};  // any of them ends a text
  std::optional<int64_t> pad_token_id{};
  std::optional<DType> dtype{};  // of the stored weights, where the source said it

  bool operator==(const ModelConfig&) const = default;
  int64_t q_per_kv() const { return num_query_heads / num_kv_heads; }
  double softmax_scale() const;
};

// Fills hf_architecture and hf_model_type where empty. UserError naming the field, what it is and the nearest valid choice: sizes that
// do not divide, an unknown family, a field that the family does not have.
void check_model_config(ModelConfig& config);

}  // namespace mw
