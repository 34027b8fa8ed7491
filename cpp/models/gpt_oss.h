// GPT-OSS 20B and 120B (OpenAI 2025): sliding and global layers in turn, a sink logit per query head, experts with clamped SwiGLU, biases
// everywhere.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. The experts' matrices are [experts, in, out]; gate and up stand side by side, value by value.
std::vector<ParameterSpec> gpt_oss_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor gpt_oss_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                      RouterOutputs* routers);

}  // namespace mw
