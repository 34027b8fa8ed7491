// DeepSeek V2, V2-Lite, V3 and R1 (DeepSeek-AI 2024): multi-head latent attention, experts with shared ones beside them, and V3's
// multi-token prediction.
#pragma once
#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

// In the order of transformers' state_dict. The multi-token prediction modules are the layers behind the last one, as in the published
// files; transformers does not read them. Their copies of embedding and head are copies of the main model's.
std::vector<ParameterSpec> deepseek_parameters(const ModelConfig& config, DType dtype);

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor deepseek_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                       RouterOutputs* routers);

MtpHidden deepseek_mtp(const ModelConfig& config, const ParameterSet& weights, int64_t depth, Tensor hidden, Tensor input_ids,
                       const Tokens& tokens, RouterOutputs* routers);

}  // namespace mw
