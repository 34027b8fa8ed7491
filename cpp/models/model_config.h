// The sizes and choices that make one model of a family. Fields are named as in configs/models/*.json; cpp/config reads and writes
// them, check_model_config says whether they fit together.
//
//   ModelConfig config = find_model_config("qwen3-0.6b", folder);   // config/model_lookup.h
//   config.num_layers = 2;
//   check_model_config(config);
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace mw {

struct RopeScaling {
  std::string kind = "none";  // "none", "linear", "llama3", "yarn"
  double factor = 1.0;
  double low_frequency_factor = 1.0;                // llama3
  double high_frequency_factor = 4.0;               // llama3
  int64_t original_max_position_embeddings = 8192;  // llama3, yarn
  double beta_fast = 32.0;                          // yarn (Peng et al. 2023)
  double beta_slow = 1.0;                           // yarn
  bool truncate = true;                             // yarn: the ends of its correction range are whole numbers
  double mscale = 0.0;                              // yarn of DeepSeek; 0: not given
  double mscale_all_dim = 0.0;
  std::optional<double> attention_factor{};  // yarn: of cosine and sine; absent: as transformers derives it
  bool operator==(const RopeScaling&) const = default;
};

struct RopeConfig {
  double theta = 10000.0;
  std::optional<double> local_theta;  // of sliding layers, which then have no scaling (Gemma 3)
  RopeScaling scaling;
  std::string pair_layout_in_hf_weights = "half_split";  // or "interleaved"
  bool operator==(const RopeConfig&) const = default;
};

// Normalised query and key heads.
struct QkNorm {
  std::string kind = "rms";  // "rms": with a weight, before rope; "l2": without, after rope (Llama 4 Scout)
  double epsilon = 1e-6;
  bool operator==(const QkNorm&) const = default;
};

// Which keys a layer's queries see: layer i has the kind layer_kinds[i % layer_kinds.size()].
//   "global"               all earlier ones
//   "sliding"              i - sliding_window < j <= i
//   "chunked"              those of its own chunk of chunk_size positions
//   "global_without_rope"  all earlier ones, without positions (NoPE, Llama 4)
struct AttentionPattern {
  std::vector<std::string> layer_kinds{"global"};
  int64_t sliding_window = 0;
  int64_t chunk_size = 0;
  bool operator==(const AttentionPattern&) const = default;
};

// Queries of layers without rope are multiplied by 1 + scale ln(1 + floor((position + 1) / floor_scale)) (Llama 4).
struct TemperatureConfig {
  double floor_scale = 8192;
  double scale = 0.1;
  bool operator==(const TemperatureConfig&) const = default;
};

// Multi-head latent attention (DeepSeek-AI 2024); head_dim is qk_nope_head_dim + qk_rope_head_dim.
struct MlaConfig {
  int64_t q_lora_rank = 0;  // 0: queries are projected directly (V2-Lite)
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  bool operator==(const MlaConfig&) const = default;
};

struct MoeConfig {
  int64_t num_experts = 0;
  int64_t experts_per_token = 0;
  int64_t num_shared_experts = 0;
  int64_t shared_expert_mlp_dim = 0;      // of all shared experts together
  int64_t first_dense_layers = 0;         // these have a plain mlp
  int64_t moe_layer_step = 1;             // behind them layer i has experts where (i + 1) % moe_layer_step == 0
  std::string routing_score = "softmax";  // "softmax", "sigmoid", "softmax_of_top_k"
  bool routing_selection_bias = false;    // added to the scores for the choice alone, moved by balancing (DeepSeek V3)
  bool normalize_topk_weights = false;
  double routed_scaling_factor = 1.0;
  int64_t num_expert_groups = 1;
  int64_t groups_selected = 1;
  std::string group_score = "max";                  // "max", "top2_sum"
  std::string weight_applied_to = "expert output";  // or "expert input" (Llama 4)
  double load_balance_loss_weight = 0.0;            // router_aux_loss_coef of config.json; a loss only where it is asked for
  bool output_router_logits = false;                // of config.json: asks for that loss, as in transformers
  bool operator==(const MoeConfig&) const = default;
};

// The image encoder of Gemma 3 and Llama 4: counted, not yet traced.
struct VisionConfig {
  std::string kind;  // "siglip", "llama4"
  int64_t image_size = 0, patch_size = 0, channels = 3;
  int64_t hidden_dim = 0, mlp_dim = 0, num_layers = 0, num_heads = 0;
  int64_t tokens_per_image = 0;
  int64_t projector_input_dim = 0, projector_output_dim = 0;  // llama4: of its adapter
  double norm_epsilon = 1e-6;
  bool operator==(const VisionConfig&) const = default;
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
  int64_t moe_mlp_dim = 0;              // of one expert
  std::string activation = "silu";      // "silu", "gelu_tanh", "gelu_erf", "relu", "clamped_swiglu" (GPT-OSS)
  double activation_clamp_limit = 7.0;  // clamped_swiglu
  double activation_alpha = 1.702;      // clamped_swiglu
  double norm_epsilon = 1e-5;
  std::optional<QkNorm> qk_norm{};
  std::optional<double> attention_scale{};  // absent: 1 / sqrt(head_dim)
  RopeConfig rope;
  bool tie_embeddings = false;           // the embedding table is the output head too
  double attention_logit_softcap = 0.0;  // 0: none; cap tanh(logit / cap) (Gemma 2)
  double final_logit_softcap = 0.0;
  AttentionPattern attention_pattern;
  std::optional<TemperatureConfig> temperature_tuning{};
  BiasConfig bias;
  std::optional<MlaConfig> mla{};
  std::optional<MoeConfig> moe{};
  int64_t mtp_layers = 0;  // multi-token prediction modules behind the last layer (DeepSeek V3)
  std::optional<VisionConfig> vision{};

  std::optional<int64_t> bos_token_id{};
  std::vector<int64_t> eos_token_ids{};  // any of them ends a text
  std::optional<int64_t> pad_token_id{};
  std::optional<DType> dtype{};  // of the stored weights, where the source said it

  bool operator==(const ModelConfig&) const = default;
  int64_t q_per_kv() const { return num_query_heads / num_kv_heads; }
  double softmax_scale() const;  // DeepSeek's yarn factor is in it
  const std::string& layer_kind(int64_t layer) const;
  bool has_experts(int64_t layer) const;
};

// Fills hf_architecture and hf_model_type where empty. UserError naming the field, what it is and the nearest valid choice: sizes that
// do not divide, an unknown family, a field that the family does not have.
void check_model_config(ModelConfig& config);

}  // namespace mw
