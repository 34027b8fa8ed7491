#include "ir/plan.h"

#include <set>

#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

uint64_t hash_of(const testing::StepOptions& step, const PlanOptions& options) { return plan_hash(plan_step(step, options)); }

}  // namespace

// Equal for equal settings; another one whenever a rank would do something else.
TEST(plan, hash_tells_plans_apart) {
  const testing::StepOptions step{.batch = 8, .microbatches = 2};
  PlanOptions options;
  options.mesh = Mesh({{"fsdp", 2}});
  const uint64_t hash = hash_of(step, options);
  EXPECT_EQ(hash_of(step, options), hash);
  std::set<uint64_t> seen{hash};
  const auto differs = [&](const testing::StepOptions& other_step, const PlanOptions& other) {
    EXPECT(seen.insert(hash_of(other_step, other)).second);
  };
  PlanOptions other = options;
  other.remat = parse_remat("full");
  differs(step, other);
  other.remat = parse_remat("minimal_offloaded");
  differs(step, other);
  other = options;
  other.rules.optimizer.clear();
  differs(step, other);
  other = options;
  other.fuse = false;
  differs(step, other);
  other = options;
  other.mesh = Mesh({{"data", 2}});
  differs(step, other);
  testing::StepOptions longer = step;
  longer.seq = 16;
  differs(longer, options);
  longer = step;
  longer.microbatches = 4;
  differs(longer, options);
  longer = step;
  longer.optimizer.weight_decay = 0.2;
  differs(longer, options);
}

}  // namespace mw
