#include "passes/op_layout.h"

#include <algorithm>

#include "base/error.h"
#include "ir/dim_names.h"
#include "passes/exchange_experts.h"

namespace mw {
namespace {

Layout to_layout(const std::vector<Assignment>& given) {
  Layout layout;
  for (const Assignment& a : given) {
    std::vector<AxisPart> parts = layout.parts(a.dim);
    parts.push_back({a.axis, a.size, a.stride});
    layout.set(a.dim, joined_parts(parts));
  }
  return layout;
}

bool names_a_dim(const RuleTable& table, const Mesh& mesh, std::string_view dim) {
  return std::any_of(table.begin(), table.end(), [&](const RuleRow& row) { return row.dim == dim && mesh.size_of(row.axis) > 1; });
}

}  // namespace

DimSizes loop_space(const Signature& signature) {
  DimSizes dims;
  const auto add = [&](const Type* type) {
    for (const Dim& dim : type->dims) {
      if (std::none_of(dims.begin(), dims.end(), [&](const auto& d) { return d.first == dim.name; })) dims.emplace_back(dim.name, dim.size);
    }
  };
  for (const Type* type : signature.results) add(type);
  for (const Type* type : signature.operands) add(type);
  return dims;
}

DimRole role_of(const Op& op, const Signature& signature, std::string_view dim) {
  return op.def->role ? op.def->role(signature, dim) : DimRole{};
}

std::vector<std::string> carried_by(const Op& op, const Signature& signature, std::string_view dim) {
  return op.def->carries ? op.def->carries(signature, dim) : std::vector<std::string>{};
}

bool is_split_by_expert(const Op& op, const AxisPart& part) {
  const std::vector<std::string> axes = op.attributes.names_or_empty(kExpertAxes);
  return std::find(axes.begin(), axes.end(), part.axis) != axes.end();
}

namespace {

// Without the rows that this op cannot follow.
RuleTable rows_for(const RuleTable& table, const Op& op, const Signature& signature) {
  const std::vector<std::string> tokens = carried_by(op, signature, kExpertRows);
  RuleTable rows;
  for (const RuleRow& row : table) {
    // An axis over which indices lie in zigzag order, where the op counts them from one start.
    const DimRole role = role_of(op, signature, row.dim);
    if (is_zigzag(row.dim, row.axis) && role.needs_offset && !role.takes_halves) continue;
    // Rows of experts have the shards of their tokens where the table gives them the same axis; only the outermost dim must agree.
    const bool inner = std::find(tokens.begin() + (tokens.empty() ? 0 : 1), tokens.end(), row.dim) != tokens.end();
    const auto same_axis = [&](const RuleRow& other) { return other.dim == kExpertRows && other.axis == row.axis; };
    if (inner && std::none_of(table.begin(), table.end(), same_axis)) continue;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

Layout op_layout(const Program& program, const Op& op, const RuleTable& table, const Mesh& mesh, const std::vector<PartialOver>& partial) {
  const Signature signature = program.signature(op);
  const DimSizes dims = loop_space(signature);
  std::vector<bool> may_shard;
  for (const auto& [dim, size] : dims)
    may_shard.push_back(role_of(op, signature, dim).use != DimUse::kWhole && carried_by(op, signature, dim).empty());
  std::vector<Assignment> taken;
  for (const PartialOver& p : partial) taken.push_back({"", p.part.axis, p.part.size, p.part.stride});
  try {
    Layout layout = to_layout(read_table(rows_for(table, op, signature), mesh, dims, may_shard, taken));
    for (const auto& [dim, size] : dims) {
      std::vector<AxisPart> parts;
      for (const std::string& from : carried_by(op, signature, dim)) {
        const std::vector<AxisPart>& more = layout.parts(from);
        parts.insert(parts.end(), more.begin(), more.end());
      }
      if (!parts.empty()) layout.set(dim, joined_parts(parts));
    }
    std::vector<AxisPart> parts;  // rows that were sent to the ranks of their experts: one axis shards both
    for (const AxisPart& part : layout.parts(kExpertRows)) {
      if (is_split_by_expert(op, part)) parts.push_back(part);
    }
    if (!parts.empty()) layout.set("experts", parts);
    return layout;
  } catch (const UserError& error) {
    throw UserError(program.describe(op) + ": " + error.what());
  }
}

Layout stored_layout(const RuleTable& table, const Mesh& mesh, const Type& type) {
  DimSizes dims;
  for (const Dim& dim : type.dims) dims.emplace_back(dim.name, dim.size);
  try {
    return to_layout(read_table(table, mesh, dims, std::vector<bool>(dims.size(), true)));
  } catch (const UserError& error) {
    throw UserError(to_string(type) + ": " + error.what());
  }
}

bool is_decomposed(const Program& program, const Op& op, const RuleTable& table, const Mesh& mesh) {
  if (!op.def->decompose_when_sharded) return false;
  const Signature signature = program.signature(op);
  const DimSizes dims = loop_space(signature);
  return std::any_of(dims.begin(), dims.end(), [&](const auto& dim) {
    return role_of(op, signature, dim.first).use == DimUse::kWhole && names_a_dim(table, mesh, dim.first);
  });
}

Layout restricted(const Layout& layout, const Type& type) {
  Layout own;
  for (const DimShards& entry : layout.dims) {
    if (type.has(entry.dim)) own.set(entry.dim, entry.parts);
  }
  return own;
}

ViewLayouts view_layouts(const Type& from, const Type& to, Layout layout) {
  ViewLayouts layouts{.from = std::move(layout), .to = {}};
  size_t a = 0, b = 0;
  while (true) {
    while (a < from.dims.size() && from.dims[a].size == 1) ++a;  // has no shards, and may stand on one side only
    while (b < to.dims.size() && to.dims[b].size == 1) ++b;
    if (a == from.dims.size() || b == to.dims.size()) break;
    size_t a_end = a + 1, b_end = b + 1;
    int64_t a_size = from.dims.at(a).size, b_size = to.dims.at(b).size;
    while (a_size != b_size) (a_size < b_size) ? a_size *= from.dims.at(a_end++).size : b_size *= to.dims.at(b_end++).size;
    for (size_t i = a + 1; i < a_end; ++i) layouts.from.set(from.dims[i].name, {});
    std::vector<AxisPart> parts = layouts.from.parts(from.dims[a].name);
    while (to.dims[b].size % total_size(parts) != 0) parts.pop_back();
    layouts.from.set(from.dims[a].name, parts);
    layouts.to.set(to.dims[b].name, parts);
    a = a_end;
    b = b_end;
  }
  layouts.to.partial = layouts.from.partial;
  return layouts;
}

}  // namespace mw
