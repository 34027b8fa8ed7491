// Reductions over named dims.
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

Tensor reduce_sum(Tensor x, std::vector<std::string> dims, Source source = Source::here());
Tensor reduce_mean(Tensor x, std::vector<std::string> dims, Source source = Source::here());
Tensor reduce_max(Tensor x, std::vector<std::string> dims, Source source = Source::here());
Tensor reduce_min(Tensor x, std::vector<std::string> dims, Source source = Source::here());
Tensor argmax(Tensor x, std::string dim, Source source = Source::here());  // i32; the lowest index at a tie

}  // namespace mw
