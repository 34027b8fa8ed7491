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

// The weights of the terms that a training loss adds to the mean loss per token; 0 leaves a term out.
struct LossTerms {
  double mtp = 0;                  // the mean loss of the multi-token prediction modules (DeepSeek-V3 2024, eq. 24-25)
  double balance = 0;              // load balance of experts, all layers together (Fedus et al. 2021)
  double sequence_balance = 0;     // the same per sequence, layer by layer (DeepSeek-V3 2024, eq. 17-20)
  double router_z = 0;             // mean squared log-sum-exp of the router's logits (Zoph et al. 2022), layer by layer
  double selection_bias_rate = 0;  // moves the router's selection bias by this much per step (DeepSeek-V3 2024, section 2.1.2)
  bool expert_load = false;        // also the choices per expert, as results "expert_load.layers.N" f32[experts]
  bool operator==(const LossTerms&) const = default;
};

// UserError naming the term that the model has no part for.
void check_loss_terms(const LossTerms& terms, const ModelConfig& config);

// Further inputs targets i32[batch, seq] (negative: none), loss_weights f32[batch, seq] and the scalar loss_scale f32, 1 / the sum of the
// weights of the whole optimizer step; with multi-token prediction of depth k = 1.. also mtp_input_ids.k, mtp_targets.k and
// mtp_loss_weights.k, which are moved k tokens further. Output loss: f32 without dims; where it has several terms also token_loss,
// mtp_loss, balance_loss, sequence_balance_loss and router_z_loss, without their weights. Balance terms are means over the microbatches
// of a step: `microbatches` is their number. With a selection_bias_rate, "gradient.NAME" of each selection bias is the experts' load.
Program trace_loss(const ModelConfig& config, const BatchSize& size, const LossTerms& terms = {}, int64_t microbatches = 1);

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
