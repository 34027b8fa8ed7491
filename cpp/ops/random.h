// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): key (seed, step, scope name), counter the element's global index.
#pragma once
#include <string>

#include "ir/builder.h"

namespace mw {

// f32 of `type`'s dims, uniform in [0, 1) or standard normal. `key` i32 scalars seed and step are run-time inputs; `name` is the
// stream's own name (a scope, or a parameter's Hugging Face name).
Tensor random_uniform(Type type, Tensor seed, Tensor step, std::string name, Source source = Source::here());
Tensor random_normal(Type type, Tensor seed, Tensor step, std::string name, Source source = Source::here());

}  // namespace mw
