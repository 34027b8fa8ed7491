// GPT-3 (Brown et al. 2020) as GPT-2's class has it (Radford et al. 2019): LayerNorm, learned positions, a plain mlp, biases everywhere.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. Matrices are [in, out]; c_attn holds queries, keys and values side by side.
std::vector<ParameterSpec> gpt3_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor gpt3_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers);

Tensor gpt3_head(const ModelConfig& config, const ParameterSet& weights);

}  // namespace mw
