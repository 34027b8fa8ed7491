#include "layers/gated_mlp.h"

#include "layers/linear.h"
#include "ops/gated_activation.h"

namespace mw {

Tensor gated_mlp(Tensor x, const GatedMlpWeights& weights, const std::string& activation, std::string_view scope) {
  Builder& b = *x.builder;
  const Scope block(b, scope);
  const Tensor gate = linear("gate", x, weights.gate, weights.gate_bias, "embed");
  const Tensor up = linear("up", x, weights.up, weights.up_bias, "embed");
  Tensor hidden;
  {
    const Scope part(b, "activation");
    hidden = gated_activation(gate, up, activation);
  }
  return linear("down", hidden, weights.down, weights.down_bias, "mlp");
}

}  // namespace mw
