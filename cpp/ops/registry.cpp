#include "ops/registry.h"

#include <unordered_map>
#include <vector>

#include "ops/op_list.h"

namespace mw {
namespace {

const std::vector<const OpDef*>& op_table() {
  static const std::vector<const OpDef*> table = [] {
    std::vector<const OpDef*> all;
#define MW_ADD_FAMILY(family) \
  for (const OpDef& def : family()) all.push_back(&def);
    MW_OP_FAMILIES(MW_ADD_FAMILY)
#undef MW_ADD_FAMILY
    return all;
  }();
  return table;
}

}  // namespace

std::span<const OpDef* const> all_ops() { return op_table(); }

const OpDef* find_op(std::string_view name) {
  static const std::unordered_map<std::string_view, const OpDef*> index = [] {
    std::unordered_map<std::string_view, const OpDef*> by_name;
    for (const OpDef* def : op_table()) by_name.emplace(def->name, def);
    return by_name;
  }();
  const auto at = index.find(name);
  return at == index.end() ? nullptr : at->second;
}

}  // namespace mw
