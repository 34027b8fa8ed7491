// act(gate) * up (Shazeer 2020), fused.
#pragma once
#include <string>

#include "ir/builder.h"

namespace mw {

// kind: "silu", "gelu_tanh", "gelu_erf", "relu". gate and up have the same type.
Tensor gated_activation(Tensor gate, Tensor up, std::string kind, Source source = Source::here());

}  // namespace mw
