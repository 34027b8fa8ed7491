#include "planner/op_work.h"

#include <algorithm>
#include <array>

namespace mw {
namespace {

constexpr std::array<std::string_view, 3> kWeightProducts{"dot", "grouped_dot", "grouped_dot_weights"};
constexpr std::array<std::string_view, 6> kOtherProducts{"attention",     "attention_gradient",     "cached_attention",
                                                         "cross_entropy", "cross_entropy_gradient", "cross_entropy_with_gradients"};

bool has_planned_rows(const Type& type, int64_t bound) {
  const int at = type.index_of("expert_rows");
  return at >= 0 && type.dims[static_cast<size_t>(at)].size == bound;
}

}  // namespace

double share_of_expert_rows(const Program& program, const Op& op, const ExpertRowsPlanned& rows) {
  if (rows.bound == 0) return 1;
  const auto planned = [&](ValueId id) { return has_planned_rows(program.type(id), rows.bound); };
  bool any = false;
  for (const ValueId id : op.operands) any = any || planned(id);
  for (const ValueId id : op.results) any = any || planned(id);
  return any ? static_cast<double>(rows.mean) / static_cast<double>(rows.bound) : 1;
}

Cost usual_cost(const Program& program, const Op& op, const ExpertRowsPlanned& rows) {
  Cost cost = cost_of(*op.def, program.signature(op));
  const double share = share_of_expert_rows(program, op, rows);
  if (share == 1) return cost;
  if (op.attributes.number_or("filled", 0) == 0) cost.flops *= share;  // else they count the rows that belong to an expert already
  const auto count = [&](ValueId id) {
    const Type& type = program.type(id);
    if (has_planned_rows(type, rows.bound)) cost.bytes -= (1 - share) * static_cast<double>(type.bytes());
  };
  for (const ValueId id : op.operands) count(id);
  for (const ValueId id : op.results) count(id);
  return cost;
}

double ring_bytes(std::string_view op, int64_t given, int64_t ranks) {
  const double bytes = static_cast<double>(given), others = static_cast<double>(ranks - 1);
  if (op == "all_gather") return bytes * others;
  const double share = bytes * others / static_cast<double>(ranks);
  return op == "all_reduce" ? 2 * share : share;
}

BytesSent bytes_sent(const Program& program, const Op& op) {
  const int64_t ranks = ranks_of(op);
  const std::string_view name = op.def->name;
  const int64_t given = program.type(op.operands[0]).bytes();
  const auto both = [](double bytes) { return BytesSent{bytes, bytes}; };
  if (name == "expert_counts") return both(ring_bytes("all_gather", op.attributes.integer("experts") * dtype_bytes(DType::kI32), ranks));
  // Both ways the rows of this rank's own tokens; the others are room.
  if (name == "expert_dispatch") return {ring_bytes(name, given, ranks), static_cast<double>(given)};
  if (name == "expert_return") return {ring_bytes(name, program.type(op.results[0]).bytes(), ranks), static_cast<double>(given)};
  if (name == "ring_shift") return both(ranks > 1 ? static_cast<double>(given) : 0);
  return both(ring_bytes(name, given, ranks));
}

bool is_product_with_weights(std::string_view op) { return std::ranges::find(kWeightProducts, op) != kWeightProducts.end(); }

std::string product_dtype(const Program& program, const Op& op) {
  if (!is_product_with_weights(op.def->name) && std::ranges::find(kOtherProducts, op.def->name) == kOtherProducts.end()) return "";
  const DType dtype = program.type(op.operands[0]).dtype;
  return dtype == DType::kBF16 || dtype == DType::kF16 ? "bfloat16" : "float32";
}

std::string axes_text(const Op& op) {
  std::string text;
  for (const std::string& name : op.attributes.names("axes")) text += (text.empty() ? "" : "+") + parse_axis_part(name).axis;
  return text;
}

int64_t ranks_of(const Op& op) {
  int64_t ranks = 1;
  for (const std::string& name : op.attributes.names("axes")) ranks *= parse_axis_part(name).size;
  return ranks;
}

}  // namespace mw
