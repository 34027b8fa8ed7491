// The choice of experts for each token of a mixture of experts, and the weights of the choice.
#pragma once
#include <optional>
#include <string>

#include "ir/builder.h"

namespace mw {

struct RouteAttributes {
  // Where weights come from: softmax over all experts (Mixtral, Qwen3, DeepSeek V2), sigmoid of each (DeepSeek V3, Llama 4), or softmax
  // over the chosen ones (GPT-OSS).
  std::string score = "softmax";
  int64_t k = 1;
  // Experts stand in `groups` groups of neighbours, of which only the best `groups_selected` may be chosen from (DeepSeek).
  int64_t groups = 1, groups_selected = 1;
  std::string group_score = "max";  // of a group: that of its best expert, or top2_sum
  bool normalize = false;           // weights are divided by their sum + 1e-20
  double scaling = 1.0;             // and then multiplied

  Attributes to_attributes() const;
  static RouteAttributes from(const Attributes& attributes);
};

struct Routing {
  Tensor weights;  // f32[.., top_k]
  Tensor indices;  // i32[.., top_k], the best first, the lower one first at a tie
};

// logits f32[.., experts]. selection_bias f32[experts] is added to the scores for the choice alone.
Routing route(Tensor logits, std::optional<Tensor> selection_bias, const RouteAttributes& attributes, Source source = Source::here());

// f32[.., top_k]: 1 for the first `capacity` choices of each expert in the order of the tokens of the whole batch, 0 for those beyond.
Tensor within_capacity(Tensor indices, int64_t experts, int64_t capacity, Source source = Source::here());

}  // namespace mw
