#include "models/flops.h"

namespace mw {

double forward_flops(const ModelConfig& config, double num_sequences, double seq) {
  const double tokens = num_sequences * seq, d = static_cast<double>(config.embedding_dim), f = static_cast<double>(config.mlp_dim);
  const double H = static_cast<double>(config.num_query_heads), K = static_cast<double>(config.num_kv_heads),
               h = static_cast<double>(config.head_dim);
  const double projections = 2 * tokens * d * (H + 2 * K) * h + 2 * tokens * d * H * h;
  const double attention = 2 * tokens * seq * H * h;
  const double mlp = 2 * tokens * f * d * 3;  // gate, up, down
  const double head = 2 * tokens * d * static_cast<double>(config.vocab_size);
  return static_cast<double>(config.num_layers) * (projections + attention + mlp) + head;
}

double training_flops(const ModelConfig& config, double num_sequences, double seq) { return 3 * forward_flops(config, num_sequences, seq); }

double training_flops_per_token(const ModelConfig& config, double seq) { return training_flops(config, 1, seq) / seq; }

int64_t kv_cache_bytes_per_token(const ModelConfig& config, DType dtype) {
  return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype_bytes(dtype);
}

}  // namespace mw
