// schedule: transfers beside compute. A collective stands in the order where it starts; Piece::finish says in front of which op it is
// finished. Gathers of parameters start early, reductions of gradients and what only adds them up end late, within a bound on the bytes
// that are in flight.
//
//   %9 = dot(%1, %8); %10 = all_gather(%2); %11 = dot(%9, %10)   ->   %10 = all_gather(%2); %9 = dot(%1, %8); [%10] %11 = dot(%9, %10)
//
// Every rank of a stage gets the same order of starts and of ends, so nobody waits in a circle. Linear in the number of ops.
#pragma once
#include <cstdint>

#include "ir/plan.h"
#include "passes/place.h"

namespace mw {

// As a bound: room for what the layer with the most bytes gathers and reduces, so that transfers run about one layer ahead and behind.
inline constexpr int64_t kOneLayer = -1;

// `most_bytes` bounds, at any point of a piece, the operands, results and workspaces of the collectives in flight; parameters and states
// are not counted, since they lie there anyway. Where a piece both gathers parameters and moves what it made itself, each gets half. 0:
// every collective ends where it starts.
Plan schedule(Plan plan, int64_t most_bytes, const BackendFacts& backend);

// Bytes that the collective `op` keeps reserved while it is in flight.
int64_t bytes_in_flight(const Program& program, const Op& op, const BackendFacts& backend);

}  // namespace mw
