// The sums of collectives: every communicator forms them here, in the order of the group, so that they have the same bits everywhere.
#pragma once
#include <span>

#include "comm/communicator.h"

namespace mw {

// out[i] = in[0][offset + i] (+ or max) in[1][offset + i] ... in the order given; BF16 is added in FP32 and rounded once. `out`
// may be one of the inputs (with offset 0).
void combine(DType dtype, ReduceKind kind, std::span<const void* const> in, int64_t offset, void* out, int64_t count);

}  // namespace mw
