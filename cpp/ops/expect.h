// Checks that type rules share: each throws a UserError that says what was expected and what was found.
//
//   expect_dims("q", signature.operand(0), {"batch", "seq", "kv_heads", "q_per_kv", "head_dim"});
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "ir/op_def.h"

namespace mw {

// `type` has exactly these dims in this order.
void expect_dims(std::string_view operand, const Type& type, const std::vector<std::string>& names);
// `type` has the dims of `like`, in their order and of their sizes.
void expect_same_dims(std::string_view operand, const Type& type, std::string_view like_name, const std::vector<Dim>& like);
// The dim of that name has the same size in both.
void expect_same_size(std::string_view dim, std::string_view a_name, const Type& a, std::string_view b_name, const Type& b);
void expect_dtype(std::string_view operand, const Type& type, DType dtype);
void expect_float(std::string_view operand, const Type& type);
// The shard offsets at the end of the operands are i32 scalars, and `count` operands stand before them.
void expect_operands(const Signature& signature, size_t count);

}  // namespace mw
