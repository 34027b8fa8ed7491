// Dispatch of a mixture of experts: tokens as rows sorted by expert, and back.
//
//   const Tensor rows = to_expert_rows(x, routing.indices, 8);                       // [expert_rows, embed]
//   const Tensor hidden = grouped_dot(rows, w, expert_of_rows(routing.indices, 8), {"embed"});
//   const Tensor y = combine(.., routing.weights, routing.indices, 8);               // [batch, seq, embed]
//
// Below, indices are i32[TOKENS.., top_k] and hold each token's experts; expert_rows counts TOKENS times top_k.
#pragma once
#include <optional>

#include "ir/builder.h"

namespace mw {

// x[TOKENS.., OTHERS..] -> [expert_rows, OTHERS..]: each row its token, times weights f32[TOKENS.., top_k] where they are given.
// x[TOKENS.., top_k, OTHERS..]: each row its own choice.
Tensor to_expert_rows(Tensor x, Tensor indices, int64_t experts, std::optional<Tensor> weights = std::nullopt,
                      Source source = Source::here());

// rows[expert_rows, OTHERS..] -> [TOKENS.., top_k, OTHERS..]: the inverse of the second form.
Tensor from_expert_rows(Tensor rows, Tensor indices, int64_t experts, Source source = Source::here());

// i32[expert_rows], ascending.
Tensor expert_of_rows(Tensor indices, int64_t experts, Source source = Source::here());

}  // namespace mw
