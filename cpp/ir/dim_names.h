// The standard dim names. A name outside this list must be declared (Builder::declare_dim, mw.Dim in Python), so that a typing
// error is found where it is made.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace mw {

const std::vector<std::string>& standard_dims();
bool is_standard_dim(std::string_view name);

// Rows of experts: tokens repeated once per choice and sorted by expert. The order means something within one rank only, so no value is
// moved between ranks along this dim; its shards are those of the tokens.
inline constexpr const char* kExpertRows = "expert_rows";
// How many rows a rank exchanges with others: its shards are those of the rows.
inline constexpr const char* kExpertCounts = "expert_counts";

}  // namespace mw
