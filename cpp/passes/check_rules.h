// Mistakes in rules that reading the tables would not meet: a row for a dim that does not exist, and a mesh axis without any row, whose
// ranks would all do the same work.
#pragma once
#include "mesh/rules.h"

namespace mw {

// UserError naming the nearest dim, or the axis and a row that would use it.
void check_rules(const Rules& rules, const Mesh& mesh);

}  // namespace mw
