// Gemma 1, 2 and 3 (Gemma Team 2024, 2024, 2025), the text part: embeddings times sqrt(embedding_dim), norms whose weight w multiplies as
// 1 + w, tied heads. Gemma 2 and 3 have norms before and behind attention and mlp; Gemma 3 normalises query and key heads.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. Norm weights begin as 0. In the files of Gemma3ForConditionalGeneration the names begin with
// "language_model.".
std::vector<ParameterSpec> gemma_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor gemma_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens, RouterOutputs* routers);

}  // namespace mw
