// Weights of the blocks by the names that most families give them, and the blocks' settings out of a configuration.
//
//   self_attention(h, attention_weights(w, "model.layers.3.self_attn."), attention_settings(config, 3), tokens)
#pragma once
#include <string>

#include "layers/attention.h"
#include "layers/gated_mlp.h"
#include "layers/moe.h"
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

// q_proj, k_proj, v_proj, o_proj, their biases where there are some, q_norm, k_norm and sinks likewise.
AttentionWeights attention_weights(const ParameterSet& w, const std::string& at);
// gate_proj, up_proj, down_proj and their biases.
GatedMlpWeights gated_mlp_weights(const ParameterSet& w, const std::string& at);

// `local`: of sliding layers where these have a rotation of their own (Gemma 3).
RopeAttributes rope_attributes(const ModelConfig& config, bool local = false);
AttentionSettings attention_settings(const ModelConfig& config, int64_t layer);
MoeSettings moe_settings(const ModelConfig& config);

// What stands before "model." in the names of a folder that also holds an image encoder.
std::string language_prefix(const ModelConfig& config);

}  // namespace mw
