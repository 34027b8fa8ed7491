// The rule tables of a run: by name (a layout of configs/rules), or from a JSON file of the user's.
//
//   {"about": "...", "compute": ["batch:data", ...], "parameters": [...], "gradients": [...], "optimizer": [...]}
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "mesh/rules.h"

namespace mw {

// "default" and the files of `folder` (configs/rules), sorted.
std::vector<std::string> rules_names(const std::string& folder);

// A name comes before a path. UserError naming the nearest name.
Rules find_rules(const std::string& name_or_path, const std::string& folder);

// UserError: another form, a table that is missing, a row that is not one. `source` names the text in errors.
Rules parse_rules(std::string_view text, const std::string& source);

}  // namespace mw
