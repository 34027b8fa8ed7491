// The standard dim names. A name outside this list must be declared (Builder::declare_dim, mw.Dim in Python), so that a typing
// error is found where it is made.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace mw {

const std::vector<std::string>& standard_dims();
bool is_standard_dim(std::string_view name);

}  // namespace mw
