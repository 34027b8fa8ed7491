// Mixtral 8x7B and 8x22B (Jiang et al. 2024): Mistral with experts in every layer. The router's softmax is over all experts, and the
// weights of the chosen ones are divided by their sum.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict, under the names of the files (block_sparse_moe; w1 is the gate, w3 up, w2 down).
std::vector<ParameterSpec> mixtral_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor mixtral_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                      RouterOutputs* routers);

}  // namespace mw
