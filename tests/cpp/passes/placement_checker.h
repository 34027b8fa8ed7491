// Walks a placed Plan and keeps for every 64 bytes which value wrote them last: whoever reads must find its own value there.
#pragma once
#include "ir/plan.h"

namespace mw::testing {

// Failure naming the op, its operand and the value that overwrote it; also checks alignment, bounds and the sums of the parts.
void check_placement(const Plan& plan);

}  // namespace mw::testing
