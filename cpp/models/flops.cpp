#include "models/flops.h"

#include <algorithm>
#include <cmath>

#include "models/registry.h"

namespace mw {
namespace {

// Forward FLOPs of the parts of a layer, for `tokens` tokens in sequences of `seq`.
struct LayerFlops {
  const ModelConfig& config;
  const ModelFamily& family;
  double tokens, seq;
  double d = static_cast<double>(config.embedding_dim), H = static_cast<double>(config.num_query_heads),
         K = static_cast<double>(config.num_kv_heads), h = static_cast<double>(config.head_dim);

  double projections() const {
    if (!config.mla) return 2 * tokens * d * (H + 2 * K) * h + 2 * tokens * d * H * h;
    const MlaConfig& m = *config.mla;
    const auto q = static_cast<double>(m.q_lora_rank), kv = static_cast<double>(m.kv_lora_rank),
               nope = static_cast<double>(m.qk_nope_head_dim), rope = static_cast<double>(m.qk_rope_head_dim),
               v = static_cast<double>(m.v_head_dim);
    const double query = q > 0 ? 2 * tokens * (d * q + q * H * (nope + rope)) : 2 * tokens * d * H * (nope + rope);
    return query + 2 * tokens * (d * (kv + rope) + kv * H * (nope + v)) + 2 * tokens * d * H * v;
  }

  // Pairs of query and key in one sequence that the layer's attention looks at, by the convention of docs/flops.md.
  double pairs(int64_t layer) const {
    const std::string& kind = config.layer_kind(layer);
    if (kind == "sliding" && family.counts_windows) {
      const double window = std::min(static_cast<double>(config.attention_pattern.sliding_window), seq);
      return seq * window - window * window / 2;
    }
    if (kind == "chunked") {
      const auto chunk = static_cast<double>(config.attention_pattern.chunk_size);
      const double whole = std::floor(seq / chunk), rest = seq - whole * chunk;
      return (whole * chunk * chunk + rest * rest) / 2;
    }
    return seq * seq / 2;
  }

  double attention(int64_t layer) const {
    const double value_dim = config.mla ? static_cast<double>(config.mla->v_head_dim) : h;
    return 2 * tokens / seq * pairs(layer) * H * (h + value_dim);
  }

  double mlp(int64_t layer) const {
    const double matrices = family.gated_mlp ? 3 : 2;
    const auto one = [&](int64_t width) { return 2 * tokens * d * static_cast<double>(width) * matrices; };
    if (!config.has_experts(layer)) return one(config.mlp_dim);
    const MoeConfig& m = *config.moe;
    return 2 * tokens * d * static_cast<double>(m.num_experts) + static_cast<double>(m.experts_per_token) * one(config.moe_mlp_dim) +
           one(m.shared_expert_mlp_dim);
  }

  double all(int64_t layer) const { return projections() + attention(layer) + mlp(layer); }
};

int64_t cached_values_per_token(const ModelConfig& config) {
  if (config.mla) return config.mla->kv_lora_rank + config.mla->qk_rope_head_dim;
  return 2 * config.num_kv_heads * config.head_dim;
}

}  // namespace

// Multi-token prediction counts its layers and, as MaxText has it, neither the matrix in front of them nor a head.
double forward_flops(const ModelConfig& config, double num_sequences, double seq) {
  const LayerFlops flops{config, model_family(config.family), num_sequences * seq, seq};
  double sum = 2 * flops.tokens * flops.d * static_cast<double>(config.vocab_size);
  for (int64_t i = 0; i < config.num_layers + config.mtp_layers; ++i) sum += flops.all(i);
  return sum;
}

double training_flops(const ModelConfig& config, double num_sequences, double seq) { return 3 * forward_flops(config, num_sequences, seq); }

double training_flops_per_token(const ModelConfig& config, double seq) { return training_flops(config, 1, seq) / seq; }

int64_t kv_cache_bytes_per_token(const ModelConfig& config, DType dtype) {
  return config.num_layers * cached_values_per_token(config) * dtype_bytes(dtype);
}

int64_t kv_cache_bytes(const ModelConfig& config, DType dtype, int64_t length) {
  int64_t tokens = 0;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string& kind = config.layer_kind(i);
    const AttentionPattern& pattern = config.attention_pattern;
    tokens += kind == "sliding"   ? std::min(length, pattern.sliding_window)
              : kind == "chunked" ? std::min(length, pattern.chunk_size)
                                  : length;
  }
  return tokens * cached_values_per_token(config) * dtype_bytes(dtype);
}

}  // namespace mw
