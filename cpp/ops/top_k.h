#pragma once
#include <string>
#include <utility>

#include "ir/builder.h"

namespace mw {

// The k largest along `dim`, sorted, lowest index first at a tie: values and i32 indices with `into` (size k) in the place of `dim`.
std::pair<Tensor, Tensor> top_k(Tensor x, std::string dim, Dim into, Source source = Source::here());

}  // namespace mw
