// The Llama family: Llama 2, 3, 3.1, 3.3 (Touvron et al. 2023, Dubey et al. 2024), Mistral (Jiang et al. 2023: sliding window) and
// dense Qwen3 (Yang et al. 2025: normalised query and key heads). Pre-norm decoder with grouped attention and a gated mlp.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict.
std::vector<ParameterSpec> llama_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor llama_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers);

}  // namespace mw
