#include "planner/choose_remat.h"

#include <limits>

#include "base/error.h"

namespace mw {

const std::vector<std::string>& remat_candidates() {
  static const std::vector<std::string> names{
      "none", "minimal_with_context", "minimal", "save_dot_with_context_except_mlp", "save_dot_except_mlp", "save_qkv_proj", "full"};
  return names;
}

RematPolicy choose_remat(TrainPlanSpec spec, const BackendFacts& backend, int64_t budget) {
  int64_t least = std::numeric_limits<int64_t>::max();
  std::string smallest;
  for (const std::string& name : remat_candidates()) {
    spec.remat = parse_remat(name);
    const int64_t peak = peak_bytes(plan_train_stages(spec, backend));
    if (peak <= budget) return spec.remat;
    if (peak < least) least = peak, smallest = name;
  }
  throw UserError("remat=auto: no policy fits into " + std::to_string(budget) + " bytes per rank; the smallest, " + smallest + ", needs " +
                  std::to_string(least) + ". Smaller microbatches or more ranks need less");
}

}  // namespace mw
