// Qwen3 with experts: 30B-A3B, 235B-A22B, Coder 480B-A35B (Yang et al. 2025). Attention of Qwen3; the mlp of every moe_layer_step-th layer
// is experts behind a softmax router.
#pragma once
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

std::vector<ParameterSpec> qwen3_moe_parameters(const ModelConfig& config, DType dtype);

}  // namespace mw
