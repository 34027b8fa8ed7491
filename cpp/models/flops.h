// What a model costs by its mathematics (docs/flops.md): multiply-add counts two; norms, rope, softmax, look-up, optimizer and
// recomputed values are not counted, attention is causal over the whole sequence, a window of Mistral or Qwen3 is not counted.
#pragma once
#include "models/model_config.h"

namespace mw {

double forward_flops(const ModelConfig& config, double num_sequences, double seq);
// Forward and backward of one optimizer step: 3 times forward.
double training_flops(const ModelConfig& config, double num_sequences, double seq);
double training_flops_per_token(const ModelConfig& config, double seq);

int64_t kv_cache_bytes_per_token(const ModelConfig& config, DType dtype);

}  // namespace mw
