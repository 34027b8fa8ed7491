// What a model costs by its mathematics (docs/flops.md): multiply-add counts two; norms, rope, softmax, look-up, optimizer and
// recomputed values are not counted, attention is causal over the whole sequence. Windows and chunks count where a family mixes them with
// global layers (Gemma 2 and 3, GPT-OSS, Llama 4); a window of Mistral, Mixtral or Qwen3 does not. The image encoder is not counted.
#pragma once
#include "models/model_config.h"

namespace mw {

double forward_flops(const ModelConfig& config, double num_sequences, double seq);
// Forward and backward of one optimizer step: 3 times forward.
double training_flops(const ModelConfig& config, double num_sequences, double seq);
double training_flops_per_token(const ModelConfig& config, double seq);

// What one more token adds while every layer keeps it: keys and values, or with latent attention the latent and the rope key.
int64_t kv_cache_bytes_per_token(const ModelConfig& config, DType dtype);
// Of a sequence of `length` tokens: layers with a window or chunks keep no more than one of those.
int64_t kv_cache_bytes(const ModelConfig& config, DType dtype, int64_t length);

}  // namespace mw
