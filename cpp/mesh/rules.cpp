#include "mesh/rules.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace mw {
namespace {

// The multiples of `axis_size` on either side of `size`.
std::string nearest_sizes(int64_t size, int64_t axis_size) {
  const int64_t below = size / axis_size * axis_size, above = below + axis_size;
  return below > 0 ? std::to_string(below) + " or " + std::to_string(above) : std::to_string(above);
}

struct Factor {
  int64_t size = 1;
  int64_t stride = 1;
};

// The largest factor of an axis that touches no taken one.
Factor free_factor(const std::string& axis, int64_t axis_size, const std::vector<Assignment>& taken) {
  std::vector<Factor> used;
  for (const Assignment& t : taken) {
    if (t.axis == axis) used.push_back({t.size, t.stride});
  }
  std::sort(used.begin(), used.end(), [](const Factor& a, const Factor& b) { return a.stride < b.stride; });
  used.push_back({1, axis_size});
  Factor largest;
  int64_t from = 1;
  for (const Factor& factor : used) {
    if (factor.stride / from > largest.size) largest = {factor.stride / from, from};
    from = std::max(from, factor.stride * factor.size);
  }
  return largest;
}

RuleTable parse_table(std::initializer_list<const char*> rows) {
  RuleTable table;
  for (const char* row : rows) table.push_back(parse_rule(row));
  return table;
}

}  // namespace

RuleRow parse_rule(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0)
    throw UserError("'" + std::string(text) + "' is not a rule; expected for example 'batch:data' or 'kv_heads:tensor part'");
  std::string_view rest = text.substr(colon + 1);
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  RuleRow row{std::string(text.substr(0, colon)), std::string(rest.substr(0, rest.find(' '))), false};
  if (rest.find(' ') != std::string_view::npos) {
    if (rest.substr(rest.find(' ') + 1) != "part")
      throw UserError("rule '" + std::string(text) + "': only the word 'part' may follow the axis");
    row.part = true;
  }
  Mesh().size_of(row.axis);
  if (row.part && is_zigzag("seq", row.axis))
    throw UserError("rule '" + std::string(text) + "': the axis " + row.axis +
                    " is taken whole, since shards of seq lie over it in zigzag order; expected '" + row.dim + ":" + row.axis + "'");
  return row;
}

std::string to_string(const RuleRow& row) { return row.dim + ":" + row.axis + (row.part ? " part" : ""); }

ContextAttention parse_context_attention(std::string_view text) {
  if (text == "gather") return ContextAttention::kGather;
  if (text == "ring") return ContextAttention::kRing;
  throw UserError("context_attention is '" + std::string(text) + "'; expected 'gather' or 'ring'");
}

std::string to_string(ContextAttention attention) { return attention == ContextAttention::kRing ? "ring" : "gather"; }

Rules default_rules() {
  Rules rules;
  rules.compute = parse_table({"batch:data", "batch:fsdp", "batch:expert", "expert_rows:data", "expert_rows:fsdp", "expert_rows:expert",
                               "expert_rows:context", "experts:expert", "kv_heads:tensor part", "q_per_kv:tensor", "mlp:tensor",
                               "expert_mlp:tensor", "vocab:tensor", "seq:context", "seq:tensor"});
  rules.parameters = parse_table(
      {"experts:expert", "kv_heads:tensor part", "q_per_kv:tensor", "mlp:tensor", "expert_mlp:tensor", "vocab:tensor", "*:fsdp"});
  rules.gradients = rules.parameters;
  rules.optimizer = rules.parameters;
  return rules;
}

std::vector<Assignment> read_table(const RuleTable& table, const Mesh& mesh, const std::vector<std::pair<std::string, int64_t>>& dims,
                                   const std::vector<bool>& may_shard, const std::vector<Assignment>& taken) {
  std::map<std::string, Factor> left;  // of each axis, what is not given out yet
  for (const std::string& axis : Mesh::axis_names()) left[axis] = free_factor(axis, mesh.size_of(axis), taken);
  std::vector<int64_t> local;
  for (const auto& [name, size] : dims) local.push_back(size);
  std::vector<Assignment> given;
  const auto give = [&](size_t dim, const std::string& axis, int64_t size) {
    Factor& factor = left[axis];
    factor.size /= size;
    given.push_back({dims[dim].first, axis, size, factor.size * factor.stride});
    local[dim] /= size;
  };
  for (const RuleRow& row : table) {
    const int64_t size = left[row.axis].size;
    if (size == 1) continue;
    for (size_t i = 0; i < dims.size(); ++i) {
      if (!may_shard[i] || (row.dim != "*" && row.dim != dims[i].first)) continue;
      if (row.part) {
        int64_t factor = size;
        while (size % factor != 0 || local[i] % factor != 0) --factor;
        if (factor > 1) give(i, row.axis, factor);
        break;
      }
      const int64_t blocks = is_zigzag(dims[i].first, row.axis) ? 2 * size : size;
      if (local[i] % blocks == 0) {
        give(i, row.axis, size);
        break;
      }
      if (row.dim == "*") continue;
      if (blocks != size) {
        throw UserError("mesh axis '" + row.axis + "' of size " + std::to_string(size) + " does not cut dim '" + row.dim + "' of size " +
                        std::to_string(local[i]) +
                        " into two blocks for each rank; nearest sizes that work: " + nearest_sizes(local[i], blocks));
      }
      throw UserError("mesh axis '" + row.axis + "' of size " + std::to_string(size) + " does not divide dim '" + row.dim + "' of size " +
                      std::to_string(local[i]) + "; nearest sizes that work: " + nearest_sizes(local[i], size));
    }
  }
  return given;
}

}  // namespace mw
