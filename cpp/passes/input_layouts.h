// Where batch fields lie when a piece begins: each is cut up as far as all its readers agree, so that nobody has to gather it.
//
//   gather_rows(table, ids)  wants batch:data;  ids >= 0  wants batch:data seq:tensor    ->    ids lie at batch:data
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ir/plan.h"
#include "mesh/mesh.h"
#include "mesh/rules.h"

namespace mw {

// By name of the input, over all pieces. `table_of` gives a piece's compute rules.
std::map<std::string, Layout> input_layouts(const std::vector<Piece>& pieces, const Mesh& mesh,
                                            const std::function<const RuleTable&(const Piece&)>& table_of);

}  // namespace mw
