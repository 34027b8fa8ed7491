// Initial weights, the same on every mesh: element i of a Hugging Face tensor is a function of (seed, the tensor's name, i) alone.
#pragma once
#include <span>

#include "models/parameters.h"

namespace mw {

// out[i] is element first + i of `tensor`, one of the parameter's, row-major.
void fill_initial(const ParameterSpec& parameter, const std::string& tensor, uint64_t seed, int64_t first, std::span<float> out);

}  // namespace mw
