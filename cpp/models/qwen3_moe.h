// Qwen3 with experts: 30B-A3B, 235B-A22B, Coder 480B-A35B (Yang et al. 2025). Attention of Qwen3; the mlp of every moe_layer_step-th layer
// is experts behind a softmax router.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

std::vector<ParameterSpec> qwen3_moe_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor qwen3_moe_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                        RouterOutputs* routers);

}  // namespace mw
