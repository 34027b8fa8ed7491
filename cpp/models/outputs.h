// What a model gives beside its hidden states.
#pragma once
#include <vector>

#include "layers/moe.h"

namespace mw {

// What the layers with experts chose, in their order.
using RouterOutputs = std::vector<RouterOutput>;

// The hidden states of a multi-token prediction module, and the same normalised for the head.
struct MtpHidden {
  Tensor hidden, normalised;  // [batch, seq, embed]
};

}  // namespace mw
