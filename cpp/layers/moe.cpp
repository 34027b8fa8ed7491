#include "layers/moe.h"

#include <cmath>

#include "base/error.h"
#include "ops/combine.h"
#include "ops/dot.h"
#include "ops/elementwise.h"
#include "ops/expert_rows.h"
#include "ops/gated_activation.h"
#include "ops/gather.h"
#include "ops/grouped_dot.h"
#include "ops/shape.h"

namespace mw {
namespace {

// Rows of all experts, and whose they are.
struct Rows {
  Tensor values;   // [expert_rows, ..]
  Tensor experts;  // i32[expert_rows]
};

Tensor expert_linear(const Rows& rows, Tensor weight, const std::optional<Tensor>& bias, const std::string& from) {
  const Tensor y = grouped_dot(rows.values, weight, rows.experts, {from});
  return bias ? y + gather_rows(*bias, rows.experts, "experts") : y;
}

// Logits are formed and kept in FP32. A router stored in FP32 makes the tokens FP32 first.
Tensor router_logits(Tensor x, const MoeWeights& w) {
  const Tensor logits = dot(cast(x, w.router.dtype()), w.router, {"embed"}, DType::kF32);
  return w.router_bias ? logits + cast(*w.router_bias, DType::kF32) : logits;
}

Tensor without_dropped(Tensor weights, Tensor indices, int64_t experts, double factor) {
  const double mean = static_cast<double>(indices.type().elements()) / static_cast<double>(experts);
  return weights * within_capacity(indices, experts, static_cast<int64_t>(std::ceil(factor * mean)));
}

// One of the two halves of rows[expert_rows, gate_up=2, expert_mlp] (or with gate_up innermost).
Tensor half_of(Tensor rows, int64_t half) {
  const Tensor part = slice(rows, "gate_up", half, 1);
  std::vector<std::string> dims = part.type().dim_names();
  dims.erase(dims.begin());
  return merge(part, dims, "expert_mlp");
}

struct GateAndUp {
  Tensor gate, up;
};

GateAndUp gate_and_up(const Rows& rows, const MoeWeights& w) {
  Builder& b = *rows.values.builder;
  if (!w.gate_up && (!w.gate || !w.up)) throw UserError("a mixture of experts has neither gate and up nor gate_up weights");
  Tensor gate, both;
  {
    const Scope part(b, "gate");
    if (w.gate_up) both = expert_linear(rows, *w.gate_up, w.gate_up_bias, "embed");
    gate = w.gate_up ? half_of(both, 0) : expert_linear(rows, *w.gate, {}, "embed");
  }
  const Scope part(b, "up");
  return {gate, w.gate_up ? half_of(both, 1) : expert_linear(rows, *w.up, {}, "embed")};
}

}  // namespace

Tensor moe(Tensor x, const MoeWeights& w, const MoeSettings& settings, std::vector<RouterOutput>* routers) {
  Builder& b = *x.builder;
  const Scope scope(b, "mlp");
  const int64_t experts = w.router.size("experts");
  Routing routing;
  {
    const Scope part(b, "router");
    const Tensor logits = router_logits(x, w);
    routing = route(logits, w.selection_bias, settings.route);
    if (routers) routers->push_back({.logits = logits, .indices = routing.indices});
    if (settings.capacity_factor > 0)
      routing.weights = without_dropped(routing.weights, routing.indices, experts, settings.capacity_factor);
  }
  Rows rows;
  {
    const Scope part(b, "dispatch");
    // transformers rounds the weights of Llama 4 to the dtype of the tokens before it multiplies.
    const std::optional<Tensor> scale =
        settings.scale_input ? std::optional(cast(cast(routing.weights, x.dtype()), DType::kF32)) : std::nullopt;
    rows = {to_expert_rows(x, routing.indices, experts, scale), expert_of_rows(routing.indices, experts)};
  }
  const GateAndUp hidden = gate_and_up(rows, w);
  {
    const Scope part(b, "activation");
    rows.values = settings.activation == "clamped_swiglu" ? gated_activation(hidden.gate, hidden.up, settings.clamped)
                                                          : gated_activation(hidden.gate, hidden.up, settings.activation);
  }
  {
    const Scope part(b, "down");
    rows.values = expert_linear(rows, w.down, {}, "expert_mlp");
  }
  Tensor y;
  {
    const Scope part(b, "combine");
    const auto add_up = [&](Tensor values) {
      return combine(values, settings.scale_input ? std::nullopt : std::optional(routing.weights), routing.indices, experts);
    };
    y = add_up(rows.values);
    // The bias apart: so rows that are partial sums over ranks of expert_mlp are reduced behind the combination, which is smaller.
    if (w.down_bias) y = y + add_up(gather_rows(*w.down_bias, rows.experts, "experts"));
  }
  return w.shared ? y + gated_mlp(x, *w.shared, settings.activation, "shared") : y;
}

}  // namespace mw
