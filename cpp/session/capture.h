// Captures: values of a Program that are handed out beside its results.
#pragma once
#include <string>
#include <vector>

#include "ir/program.h"

namespace mw {

// For each scope that a pattern matches ("layers.*.attention.query"), the result of its last op becomes a result of that name.
// UserError for a pattern that matches nothing.
void add_captures(Program& program, const std::vector<std::string>& patterns);

// '*' stands for any text.
bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace mw
