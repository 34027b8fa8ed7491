#include "passes/check_rules.h"

#include <algorithm>

#include "base/error.h"
#include "ir/dim_names.h"

namespace mw {
namespace {

void check_dims_of(const RuleTable& table, const char* name) {
  const bool is_compute = std::string_view(name) == "compute";
  for (const RuleRow& row : table) {
    if (is_zigzag(row.dim, row.axis)) {
      const auto first = std::find_if(table.begin(), table.end(), [&](const RuleRow& r) { return r.dim == row.dim; });
      if (first->axis != row.axis)
        throw UserError("rules: '" + to_string(row) + "' stands below '" + to_string(*first) + "' in the table " + name +
                        "; expected it above: zigzag order is one of the whole " + row.dim);
    }
    if (row.dim == "*") {
      if (is_compute)
        throw UserError("rules: '" + to_string(row) + "' in the table compute; '*' may stand in parameters, gradients and optimizer only");
    } else if (!is_standard_dim(row.dim)) {
      throw UserError("rules: there is no dim '" + row.dim + "' (row '" + to_string(row) + "' of the table " + name + ")" +
                      did_you_mean(row.dim, standard_dims()));
    }
  }
}

}  // namespace

void check_rules(const Rules& rules, const Mesh& mesh) {
  check_dims_of(rules.compute, "compute");
  check_dims_of(rules.parameters, "parameters");
  check_dims_of(rules.gradients, "gradients");
  check_dims_of(rules.optimizer, "optimizer");
  for (const std::string& axis : Mesh::axis_names()) {
    // Layers are dealt out over stages by their names, which takes no rows.
    if (mesh.size_of(axis) == 1 || axis == "stage") continue;
    if (std::any_of(rules.compute.begin(), rules.compute.end(), [&](const RuleRow& row) { return row.axis == axis; })) continue;
    const auto usual = default_rules().compute;
    const auto row = std::find_if(usual.begin(), usual.end(), [&](const RuleRow& r) { return r.axis == axis; });
    throw UserError("the rules shard nothing over the mesh axis '" + axis + "' of size " + std::to_string(mesh.size_of(axis)) +
                    ", whose ranks would all do the same work; expected a row of the table compute" +
                    (row != usual.end() ? " such as '" + to_string(*row) + "'" : "") + ", or rules=none, which have one for every axis");
  }
}

}  // namespace mw
