// Mixtral 8x7B and 8x22B (Jiang et al. 2024): Mistral with experts in every layer. The router's softmax is over all experts, and the
// weights of the chosen ones are divided by their sum.
#pragma once
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict, under the names of the files (block_sparse_moe; w1 is the gate, w3 up, w2 down).
std::vector<ParameterSpec> mixtral_parameters(const ModelConfig& config, DType dtype);

}  // namespace mw
