// The gated feed-forward block: down(act(gate x) * up x) (Shazeer 2020).
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "ir/builder.h"

namespace mw {

struct GatedMlpWeights {
  Tensor gate, up;  // [mlp, embed]
  Tensor down;      // [embed, mlp]
  std::optional<Tensor> gate_bias{}, up_bias{}, down_bias{};
};

// x[batch, seq, embed] -> [batch, seq, embed]. activation: as gated_activation. Scopes: mlp.gate, .up, .activation, .down.
Tensor gated_mlp(Tensor x, const GatedMlpWeights& weights, const std::string& activation, std::string_view scope = "mlp");

}  // namespace mw
