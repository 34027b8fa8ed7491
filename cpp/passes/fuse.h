// fuse: chains of elementwise ops become one `elementwise_chain`, and a sum becomes part of the dot that makes
// one of its summands, if the other is an accumulator or is needed no more. Never across a boundary between two pieces.
//
//   %3 = mul(%1, %2)   %4 = add(%3, %0)                    ->   %4 = elementwise_chain(%1, %2, %0) {code=["mul 0 1", "add t0 2"], ...}
//   %7 = dot(%5, %6)   %8 = add(%accumulator, %7)          ->   %8 = dot(%5, %6, %accumulator) {accumulate=true, ...}
#pragma once
#include "ir/plan.h"

namespace mw {

Plan fuse(Plan plan);

}  // namespace mw
