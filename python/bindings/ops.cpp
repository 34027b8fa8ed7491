// The registry of ops as Python sees it: docs/ops.md is made from it.
#include <pybind11/stl.h>

#include "bindings.h"
#include "ops/op_list.h"

namespace mw {
namespace {

py::dict describe(const OpDef& def, const std::string& family) {
  py::dict row;
  row["name"] = std::string(def.name);
  row["family"] = family;
  row["doc"] = std::string(def.doc);
  row["num_operands"] = def.num_operands < 0 ? py::object(py::none()) : py::object(py::int_(def.num_operands));
  row["own_roles"] = def.role != nullptr;
  row["differentiable"] = def.gradient != nullptr;
  row["decomposes"] = def.decompose != nullptr;
  row["elementwise"] = def.elementwise;
  row["view"] = def.view;
  row["collective"] = def.collective;
  row["passes_partial_sums"] = def.jointly_linear != nullptr || def.linear_in != nullptr;
  std::vector<int> in_place;
  for (const int8_t operand : def.in_place) {
    if (operand >= 0) in_place.push_back(operand);
  }
  row["in_place"] = in_place;
  return row;
}

py::list list_ops() {
  py::list rows;
  const auto add = [&](std::string family, std::span<const OpDef> defs) {
    family.resize(family.rfind('_'));  // without "_ops"
    for (const OpDef& def : defs) rows.append(describe(def, family));
  };
#define MW_LIST_FAMILY(family) add(#family, family());
  MW_OP_FAMILIES(MW_LIST_FAMILY)
#undef MW_LIST_FAMILY
  return rows;
}

}  // namespace

void bind_ops(py::module_& module) {
  module.def(
      "ops", &list_ops,
      "Every op of the registry: name, family (its file in cpp/ops), doc, num_operands (None: checked by its type rule), own_roles (False: "
      "every dim is mapped), differentiable, decomposes, elementwise, view, collective, passes_partial_sums, in_place (operands that a "
      "result may overwrite).");
}

}  // namespace mw
