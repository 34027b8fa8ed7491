// simplify: drops ops that nothing needs, and makes equal ops of a piece once (equal conversions above all).
//
//   %3 = cast(%1) {dtype="bf16"}   %4 = cast(%1) {dtype="bf16"}   f(%3) g(%4)    ->    %3 = cast(%1) ...   f(%3) g(%3)
#pragma once
#include "ir/plan.h"

namespace mw {

Plan simplify(Plan plan);
void simplify(Program& program);

}  // namespace mw
