// remat=auto: the policy that recomputes least among those whose peak fits.
#pragma once
#include <optional>

#include "planner/train_plan.h"

namespace mw {

// In the order in which they are tried, least recompute first. None offloads: on a CPU the host's memory is the same one.
const std::vector<std::string>& remat_candidates();

// The first candidate with which a rank needs at most `budget` bytes. UserError when none does: what the smallest needs.
RematPolicy choose_remat(TrainPlanSpec spec, const BackendFacts& backend, int64_t budget);

}  // namespace mw
