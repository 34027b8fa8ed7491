// A mixture of experts (Shazeer et al. 2017): each token goes to k experts, gated feed-forward blocks of their own, whose results are added
// up by weight; a shared expert, which every token goes through, may stand beside them (DeepSeek). No token is dropped and no row is
// padded.
//
//   Tensor y = moe(x, {.router = r, .gate = g, .up = u, .down = d}, {.route = {.k = 2, .normalize = true}});
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "ir/builder.h"
#include "layers/gated_mlp.h"
#include "ops/gated_activation.h"
#include "ops/route.h"

namespace mw {

struct MoeWeights {
  Tensor router;                            // [experts, embed]
  std::optional<Tensor> router_bias{};      // [experts]
  std::optional<Tensor> selection_bias{};   // f32[experts]: of the choice alone
  std::optional<Tensor> gate{}, up{};       // [experts, expert_mlp, embed], or both in one:
  std::optional<Tensor> gate_up{};          // [experts, embed, gate_up=2, expert_mlp] or with gate_up innermost
  Tensor down;                              // [experts, embed, expert_mlp] or [experts, expert_mlp, embed]
  std::optional<Tensor> gate_up_bias{};     // [experts, ..] as gate_up without embed
  std::optional<Tensor> down_bias{};        // [experts, embed]
  std::optional<GatedMlpWeights> shared{};  // its dim is mlp
};

struct MoeSettings {
  RouteAttributes route{};
  bool scale_input = false;  // tokens are multiplied by their weight before the expert instead of behind it (Llama 4)
  std::string activation = "silu";
  ClampedSwiglu clamped{};  // of the activation "clamped_swiglu"
  // Drops choices beyond ceil(capacity_factor * tokens * k / experts) of an expert, in the order of the tokens of the whole batch: their
  // weight is 0. 0: none is dropped.
  double capacity_factor = 0;
};

// What the balance of experts is measured on (moe_losses.h), of one layer.
struct RouterOutput {
  Tensor logits;        // f32[batch, seq, experts]
  Tensor indices;       // i32[batch, seq, top_k]
  std::string layer{};  // "layers.3": in this scope its terms are made, so that a stage of a pipeline makes those of its layers
};

// x[batch, seq, embed] -> [batch, seq, embed]; appends this layer's choice to `routers`. Scopes: mlp.router, .dispatch, .gate, .up,
// .activation, .down, .combine, .shared.
Tensor moe(Tensor x, const MoeWeights& weights, const MoeSettings& settings, std::vector<RouterOutput>* routers = nullptr);

}  // namespace mw
