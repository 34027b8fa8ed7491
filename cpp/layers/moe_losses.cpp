#include "layers/moe_losses.h"

#include <optional>

#include "ops/elementwise.h"
#include "ops/gather.h"
#include "ops/reduce.h"
#include "ops/shape.h"

namespace mw {
namespace {

int64_t experts_of(const RouterOutput& layer) { return layer.logits.size("experts"); }
std::vector<std::string> token_dims(Tensor token_weights) { return token_weights.type().dim_names(); }

Tensor softmax(Tensor logits) {
  const Tensor e = exp(logits - reduce_max(logits, {"experts"}));
  return e / reduce_sum(e, {"experts"});
}

// Ops of one layer's terms.
class OfLayer {
 public:
  explicit OfLayer(const RouterOutput& layer) {
    if (!layer.layer.empty()) scope_.emplace(*layer.logits.builder, layer.layer);
  }

 private:
  std::optional<Scope> scope_;
};

// f32[experts]: the sum over tokens.
Tensor score_of_experts(const RouterOutput& layer, Tensor token_weights) {
  const OfLayer scope(layer);
  return reduce_sum(softmax(layer.logits) * token_weights, token_dims(token_weights));
}

// Each choice counts as its token does.
Tensor choice_weights(const RouterOutput& layer, Tensor token_weights) {
  return broadcast_to(token_weights, layer.indices.type().with_dtype(DType::kF32));
}

// A batch without tokens has the loss 0 rather than 0 / 0.
Tensor at_least_one(Tensor count) { return maximum(count, constant(*count.builder, 1.0)); }

}  // namespace

Tensor load_balance_loss(const std::vector<RouterOutput>& layers, Tensor token_weights) {
  std::optional<Tensor> choices, scores;
  for (const RouterOutput& layer : layers) {
    const Tensor load = expert_load(layer, token_weights), score = score_of_experts(layer, token_weights);
    choices = choices ? *choices + load : load;
    scores = scores ? *scores + score : score;
  }
  const Tensor tokens = at_least_one(reduce_sum(token_weights, token_dims(token_weights)) * static_cast<double>(layers.size()));
  return reduce_sum(*choices / tokens * (*scores / tokens), {"experts"}) * static_cast<double>(experts_of(layers.front()));
}

Tensor sequence_balance_loss(const RouterOutput& layer, Tensor token_weights, const std::string& score) {
  const OfLayer scope(layer);
  const Dim batch = token_weights.type().dims[0], experts = layer.logits.type().dims.back();
  const Tensor tokens = reduce_sum(token_weights, {"seq"});  // of each sequence
  Tensor share = softmax(layer.logits);
  if (score == "sigmoid") {
    const Tensor s = unary("sigmoid", layer.logits);
    share = s / reduce_sum(s, {"experts"});
  }
  const Tensor mean_share = reduce_sum(share * token_weights, {"seq"}) / at_least_one(tokens);
  const Tensor load = scatter_rows(choice_weights(layer, token_weights), layer.indices, "experts", Type{DType::kF32, {batch, experts}});
  const double per_choice = static_cast<double>(experts.size) / static_cast<double>(layer.indices.size("top_k"));
  const Tensor frequency = load / at_least_one(tokens) * per_choice;
  const Tensor sequences = reduce_sum(cast(binary("gt", tokens, constant(*tokens.builder, 0.0)), DType::kF32), {"batch"});
  return reduce_sum(frequency * mean_share, {"batch", "experts"}) / at_least_one(sequences);
}

Tensor router_z_loss(const RouterOutput& layer, Tensor token_weights) {
  const OfLayer scope(layer);
  const Tensor top = reduce_max(layer.logits, {"experts"});
  const Tensor z = log(reduce_sum(exp(layer.logits - top), {"experts"})) + top;
  const Tensor tokens = at_least_one(reduce_sum(token_weights, token_dims(token_weights)));
  return reduce_sum(square(z) * token_weights, token_dims(token_weights)) / tokens;
}

Tensor expert_load(const RouterOutput& layer, Tensor token_weights) {
  const OfLayer scope(layer);
  return scatter_rows(choice_weights(layer, token_weights), layer.indices, {"experts", experts_of(layer)}, DType::kF32);
}

Tensor balanced_selection_bias(Tensor bias, Tensor load, double rate) {
  const Tensor mean = reduce_mean(load, {"experts"});
  const Tensor up = cast(binary("lt", load, mean), DType::kF32), down = cast(binary("gt", load, mean), DType::kF32);
  return bias + (up - down) * rate;
}

}  // namespace mw
