// Values that wait in the host's memory: on a device with memory of its own they leave it between the two ops.
//
//   h = to_host(x)  ...  y = from_host(h)   // y = x
#pragma once
#include "ir/builder.h"

namespace mw {

Tensor to_host(Tensor x, Source source = Source::here());
Tensor from_host(Tensor h, Source source = Source::here());

// What one piece leaves in the host's memory for another: a carried value whose name begins so.
inline constexpr const char* kHostPrefix = "host.";

}  // namespace mw
