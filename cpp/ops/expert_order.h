// The order of the rows of experts, which several ops share: the choices of all tokens sorted by expert, those of one expert in the order
// in which they stand in memory.
//
//   indices i32[batch=1, seq=2, top_k=2] = 1 0 | 0 2    ->    rows 0 1 2 3 are choices 1 2 0 3, of experts 0 0 1 2
#pragma once
#include <vector>

#include "ir/op_def.h"

namespace mw {

// The dims of indices i32[TOKENS.., top_k] without the last. UserError when they are of another form.
std::vector<Dim> token_dims(const Type& indices);

Dim expert_rows_dim(const Type& indices);  // one row per choice

// rows[expert_rows, OTHERS..]: the dims of OTHERS. UserError for another form or number of rows.
std::vector<Dim> dims_of_rows(std::string_view operand, const Type& rows, const Type& indices);
// x[TOKENS.., OTHERS..] or x[TOKENS.., top_k, OTHERS..]: the dims of OTHERS.
std::vector<Dim> dims_of_tokens(std::string_view operand, const Type& x, const Type& indices);
// weights f32[TOKENS.., top_k].
void expect_choice_weights(const Type& weights, const Type& indices);

// The dims of the tokens. Rows carry their shards.
std::vector<std::string> carried_by_rows(const Type& indices, std::string_view dim);
// Choices are needed whole; tokens and rows are mapped, all other dims are `others`.
DimUse use_of_rows(const Type& indices, std::string_view dim, DimUse others);

// The row of each choice. UserError for an index outside 0 .. experts.
std::vector<size_t> row_of_choices(const HostArray& indices, int64_t experts);

}  // namespace mw
