// How long one op takes on a chip of a mesh. A matrix product takes the longer of its FLOPs and its bytes, every other op its bytes; a
// collective its bytes over the slowest level of the network that its ranks span.
//
//   const CostModel model(hardware, mesh, plan.expert_rows, {});
//   model.compute(program, op).seconds
#pragma once
#include <string>

#include "mesh/mesh.h"
#include "planner/hardware.h"
#include "planner/op_work.h"

namespace mw {

// What an estimate assumes beyond the Plan.
struct EstimateSettings {
  bool overlap = true;          // transfers run beside compute, parameters one layer ahead; else everything waits for them
  std::string dot_dtype{};      // peak of the matrix products of weights, "float8"; "": that of their operands
  double expert_imbalance = 1;  // rows of experts of the busiest rank, over the mean
  // Whether a token crosses a level of the network once for all experts behind it (DeepSeek-V3 2024, section 3.2.2) and not, as this
  // library sends rows, once for each.
  bool tokens_cross_once = false;
  bool exact_stages = true;  // memory and traffic of a pipeline's stages from their own Plans; else from those of their layers alone
};

// How a router chooses: what tokens_cross_once needs to know.
struct RouterChoices {
  int64_t experts_per_token = 1;
  double reach = 1;  // share of all experts among which a token's choices lie: groups_selected / num_expert_groups
};

struct ComputeTime {
  double seconds = 0;
  bool by_flops = false;    // else by bytes
  bool of_weights = false;  // a matrix product with weights
};

struct TransferTime {
  double seconds = 0;
  int level = 0;  // of the hardware's network, the outermost that it crosses
};

class CostModel {
 public:
  // `stages`: the ranks of `data` stand so many times the rest of the mesh apart.
  CostModel(const Hardware& hardware, const Mesh& mesh, const ExpertRowsPlanned& rows, EstimateSettings settings,
            RouterChoices choices = {}, int64_t stages = 1);

  ComputeTime compute(const Program& program, const Op& op) const;
  TransferTime transfer(const Program& program, const Op& op) const;
  // From one rank to another, `stride` ranks apart.
  TransferTime send(double bytes, int64_t stride) const;

  const Hardware& hardware() const { return hardware_; }
  const EstimateSettings& settings() const { return settings_; }

 private:
  // Ranks of the op's group, those of its group in one domain of `chips` neighbours.
  int64_t members_within(const Op& op, int64_t chips) const;
  // Rows that cross into domains, of those that a plain exchange sends there.
  double crossing_share(int64_t domains) const;
  int64_t rank_stride(const AxisPart& part) const;
  double bandwidth(const NetworkLevel& level) const { return level.bandwidth * hardware_.bandwidth_efficiency; }

  const Hardware& hardware_;
  Mesh mesh_;
  ExpertRowsPlanned rows_;
  EstimateSettings settings_;
  RouterChoices choices_;
  int64_t stages_;
};

}  // namespace mw
