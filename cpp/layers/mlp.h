// The plain feed-forward block of GPT-2 and GPT-3: down(act(up x)).
#pragma once
#include <optional>
#include <string>

#include "ir/builder.h"

namespace mw {

struct MlpWeights {
  Tensor up;    // mlp and embed, in either order
  Tensor down;  // embed and mlp, in either order
  std::optional<Tensor> up_bias{}, down_bias{};
};

// x[batch, seq, embed] -> [batch, seq, embed]. activation: a unary op, such as "gelu_tanh", "gelu_erf", "relu", "silu".
// Scopes: mlp.up, .activation, .down.
Tensor mlp(Tensor x, const MlpWeights& weights, const std::string& activation);

}  // namespace mw
