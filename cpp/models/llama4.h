// Llama 4 Scout and Maverick (Meta 2025), the text part: chunked attention with rope and global attention without, experts whose inputs the
// router scales, beside a shared one.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. The experts' matrices are [experts, in, out]; gate stands in front of up. In the files of
// Llama4ForConditionalGeneration the names begin with "language_model.".
std::vector<ParameterSpec> llama4_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor llama4_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                     RouterOutputs* routers);

}  // namespace mw
