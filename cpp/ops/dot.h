// dot: any contraction of two tensors by dim names.
//
//   dot(x, w, {"embed"})    x[batch, seq, embed], w[kv_heads, head_dim, embed]  ->  [batch, seq, kv_heads, head_dim]
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

// result[a's dims not contracted, then b's dims neither contracted nor in a] = sum over `contract` of a * b. A dim in both that is
// not contracted is a batch dim. The sum is formed in FP32 (or better); `dtype` is the result's, by default the operands' own.
Tensor dot(Tensor a, Tensor b, std::vector<std::string> contract, std::optional<DType> dtype = std::nullopt,
           Source source = Source::here());

}  // namespace mw
