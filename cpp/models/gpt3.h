// GPT-3 (Brown et al. 2020) as GPT-2's class has it (Radford et al. 2019): LayerNorm, learned positions, a plain mlp, biases everywhere.
#pragma once
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. Matrices are [in, out]; c_attn holds queries, keys and values side by side.
std::vector<ParameterSpec> gpt3_parameters(const ModelConfig& config, DType dtype);

}  // namespace mw
