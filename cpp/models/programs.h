// Traces a model of any family to a Program.
//
//   Program program = trace_loss(config, {.batch = 8, .seq = 256, .dtype = DType::kBF16});
#pragma once
#include "ir/program.h"
#include "models/model_config.h"

namespace mw {

struct BatchSize {
  int64_t batch = 1;
  int64_t seq = 1;
  DType dtype = DType::kF32;  // of parameters and activations
};

// Inputs input_ids, position_ids, segment_ids i32[batch, seq]; output logits f32[batch, seq, vocab].
Program trace_forward(const ModelConfig& config, const BatchSize& size);

// Further inputs targets i32[batch, seq] (negative: none), loss_weights f32[batch, seq] and the scalar loss_scale f32, 1 / the sum of the
// weights of the whole optimizer step. Output loss: f32 without dims.
Program trace_loss(const ModelConfig& config, const BatchSize& size);

struct DecodeSize {
  int64_t tokens = 1;        // of one step, of all requests, packed in one row
  int64_t slots = 1;         // requests that have a cache
  int64_t cache_length = 1;  // positions of each
  DType dtype = DType::kF32;
  int64_t step_tokens = 0;  // the most tokens of any decode Program over the same caches; 0: as this one. The lengths of rings follow it
};

// Inputs input_ids, position_ids, slots i32[batch=1, seq=tokens] (a negative slot is padding) and logit_rows i32[slot]: which token's
// logits each slot wants (negative: none, its row is zeros). States cache.layers.N.attention.key and .value, or .latent; output logits
// f32[slot, vocab]. Prefill and decoding are the same Program at different sizes.
Program trace_decode(const ModelConfig& config, const DecodeSize& size);

}  // namespace mw
