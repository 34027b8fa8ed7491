#include "layers/gated_mlp.h"

#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/gated_activation.h"

namespace mw {
namespace {

Tensor linear(std::string_view scope, Tensor x, Tensor weight, const std::optional<Tensor>& bias, const std::string& from) {
  const Scope part(*x.builder, scope);
  const Tensor y = dot(x, weight, {from});
  return bias ? y + *bias : y;
}

}  // namespace

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
