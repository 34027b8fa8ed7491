// Initial weights, the same on every mesh: element i of a Hugging Face tensor is a function of (seed, the tensor's name, i) alone.
#pragma once
#include <span>

#include "models/parameters.h"

namespace mw {

// out[i] is element first + i of the whole tensor, row-major.
void fill_initial(const ParameterSpec& parameter, uint64_t seed, int64_t first, std::span<float> out);

// The slice that starts at `start` and has the sizes `sizes`, one entry per dim of parameter.type, row-major.
void fill_initial_slice(const ParameterSpec& parameter, uint64_t seed, const std::vector<int64_t>& start, const std::vector<int64_t>& sizes,
                        std::span<float> out);

}  // namespace mw
