// The pre-norm decoder that most families share: x += attention(norm(x)); x += feed_forward(norm(x)); a norm behind the last layer.
#pragma once
#include <functional>
#include <string>

#include "layers/attention.h"
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

// The feed-forward part of one layer, whose weights' names begin with `at`: "model.layers.3.".
using FeedForward = std::function<Tensor(Tensor x, const std::string& at, int64_t layer)>;

// input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
Tensor decoder_hidden(const ModelConfig& config, const ParameterSet& weights, Tensor input_ids, const Tokens& tokens,
                      const FeedForward& feed_forward);

// lm_head, or the embedding table where they are tied.
Tensor decoder_head(const ModelConfig& config, const ParameterSet& weights);

}  // namespace mw
