#include "layers/mlp.h"

#include "layers/linear.h"

namespace mw {

Tensor mlp(Tensor x, const MlpWeights& weights, const std::string& activation) {
  Builder& b = *x.builder;
  const Scope scope(b, "mlp");
  Tensor hidden = linear("up", x, weights.up, weights.up_bias, "embed");
  {
    const Scope part(b, "activation");
    hidden = unary(activation, hidden);
  }
  return linear("down", hidden, weights.down, weights.down_bias, "mlp");
}

}  // namespace mw
