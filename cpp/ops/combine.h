// The end of a mixture of experts: each token's rows added up.
#pragma once
#include <optional>

#include "ir/builder.h"

namespace mw {

// y[TOKENS.., OTHERS..] = sum over k of weights[TOKENS.., k] rows[row of choice k, OTHERS..], in the order of k, in FP32. Without weights
// they are 1. indices: see ops/expert_rows.h.
Tensor combine(Tensor rows, std::optional<Tensor> weights, Tensor indices, int64_t experts, Source source = Source::here());

// f32[TOKENS.., top_k]: of each choice the product of its row and x[TOKENS.., OTHERS..], summed over OTHERS. The gradient of the weights.
Tensor expert_row_products(Tensor rows, Tensor x, Tensor indices, int64_t experts, Source source = Source::here());

}  // namespace mw
