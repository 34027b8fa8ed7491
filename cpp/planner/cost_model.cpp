#include "planner/cost_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"

namespace mw {
namespace {

// Steps of a collective between `groups` that forward to each other as a tree.
double steps(int64_t groups) { return static_cast<double>(std::bit_width(static_cast<uint64_t>(groups - 1))); }

// Bytes of an element in a narrow dtype over those in its own.
double narrow_bytes(const std::string& dtype, DType own) {
  const bool narrow = dtype == "float8" || dtype == "int8";
  return narrow && own == DType::kBF16 ? 0.5 : 1;
}

bool sends_rows(std::string_view op) { return op == "all_to_all" || op == "expert_dispatch" || op == "expert_return"; }

}  // namespace

CostModel::CostModel(const Hardware& hardware, const Mesh& mesh, const ExpertRowsPlanned& rows, EstimateSettings settings,
                     RouterChoices choices, int64_t stages)
    : hardware_(hardware), mesh_(mesh), rows_(rows), settings_(std::move(settings)), choices_(choices), stages_(stages) {
  if (!settings_.dot_dtype.empty()) hardware_.peak(settings_.dot_dtype);
  if (!(settings_.expert_imbalance >= 1))
    throw UserError(
        concat_text("expert_imbalance is ", settings_.expert_imbalance, "; expected at least 1, the busiest rank over the mean"));
}

ComputeTime CostModel::compute(const Program& program, const Op& op) const {
  if (op.def->view) return {};
  const Cost cost = usual_cost(program, op, rows_);
  const double load = share_of_expert_rows(program, op, rows_) == 1 ? 1 : settings_.expert_imbalance;
  ComputeTime time{.seconds = load * cost.bytes / (hardware_.memory_bandwidth * hardware_.bandwidth_efficiency)};
  const std::string dtype = product_dtype(program, op);
  if (dtype.empty()) return time;
  const bool of_weights = is_product_with_weights(op.def->name);
  time.of_weights = of_weights;
  const bool narrowed = of_weights && program.type(op.operands[0]).dtype == DType::kBF16 && !settings_.dot_dtype.empty();
  const double rate = hardware_.peak(narrowed ? settings_.dot_dtype : dtype) * hardware_.flops_efficiency;
  if (const double seconds = load * cost.flops / rate; seconds > time.seconds) time = {seconds, true, of_weights};
  return time;
}

// Of `domains` alike, k choices hit r (1 - (1 - 1/r)^k) when they lie in r of them.
double CostModel::crossing_share(int64_t domains) const {
  const double k = static_cast<double>(choices_.experts_per_token), reached = std::max(1.0, choices_.reach * static_cast<double>(domains));
  return reached * (1 - std::pow(1 - 1 / reached, k)) / k;
}

int64_t CostModel::rank_stride(const AxisPart& part) const {
  int64_t stride = part.stride * (part.axis == "data" ? stages_ : 1);
  bool inside = false;
  for (const std::string& axis : Mesh::axis_names()) {
    if (inside) stride *= mesh_.size_of(axis);
    inside = inside || axis == part.axis;
  }
  return stride;
}

int64_t CostModel::members_within(const Op& op, int64_t chips) const {
  int64_t members = 1;
  for (const std::string& name : op.attributes.names("axes")) {
    const AxisPart part = parse_axis_part(name);
    members *= chips == 0 ? part.size : std::clamp<int64_t>(chips / rank_stride(part), 1, part.size);
  }
  return members;
}

// Each inner domain of m of the n ranks takes in what the others hold, on the links of all its m ranks at once; the levels work side by
// side.
TransferTime CostModel::transfer(const Program& program, const Op& op) const {
  const int64_t ranks = ranks_of(op);
  const double n = static_cast<double>(ranks), sent = bytes_sent(program, op).usual;
  if (op.def->name == "ring_shift") {
    // All ranks send at once; the slowest link is that from the last to the first.
    return send(sent, rank_stride(parse_axis_part(op.attributes.names("axes").front())) * (ranks - 1));
  }
  const bool rows = sends_rows(op.def->name);
  const bool of_experts = op.def->name == "expert_dispatch" || op.def->name == "expert_return";
  double load = of_experts ? settings_.expert_imbalance : 1;
  // Rows that go into matrix products travel in the products' dtype, what comes back is a sum's terms.
  if (op.def->name == "expert_dispatch" && !settings_.dot_dtype.empty())
    load *= narrow_bytes(settings_.dot_dtype, program.type(op.operands[0]).dtype);
  // Of a ring: bytes that every rank has sent are 1 - 1/n of the whole.
  const double whole = ranks > 1 ? load * sent / (1 - 1 / n) : 0;
  TransferTime time;
  double latency = 0;
  int64_t inner = 1;
  for (size_t i = 0; i < hardware_.network.size(); ++i) {
    const NetworkLevel& level = hardware_.network[i];
    const int64_t outer = members_within(op, level.chips);
    if (outer > inner) {
      const double m = static_cast<double>(inner), k = static_cast<double>(outer);
      double bytes = rows ? whole * (k - m) / n : whole * (1 - m / k) / m;
      if (of_experts && settings_.tokens_cross_once) bytes *= crossing_share(ranks / inner);
      time.seconds = std::max(time.seconds, bytes / bandwidth(level));
      time.level = static_cast<int>(i);
      latency += steps(outer / inner) * level.latency;
    }
    inner = outer;
  }
  time.seconds += latency;
  return time;
}

TransferTime CostModel::send(double bytes, int64_t stride) const {
  for (size_t i = 0; i < hardware_.network.size(); ++i) {
    const NetworkLevel& level = hardware_.network[i];
    if (level.chips == 0 || stride < level.chips) return {bytes / bandwidth(level) + level.latency, static_cast<int>(i)};
  }
  throw InternalError("the outermost level of a network joins everything");
}

}  // namespace mw
