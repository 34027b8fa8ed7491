// act(gate) * up (Shazeer 2020), fused.
#pragma once
#include <string>

#include "ir/builder.h"

namespace mw {

// kind: "silu", "gelu_tanh", "gelu_erf", "relu", or "clamped_swiglu" as below. gate and up have the same type.
Tensor gated_activation(Tensor gate, Tensor up, std::string kind, Source source = Source::here());

// GPT-OSS's: (clamp(up, -limit, limit) + 1) g sigmoid(alpha g) with g = min(gate, limit).
struct ClampedSwiglu {
  double limit = 7.0, alpha = 1.702;
};
Tensor gated_activation(Tensor gate, Tensor up, const ClampedSwiglu& clamped, Source source = Source::here());

}  // namespace mw
