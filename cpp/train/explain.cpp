#include "train/explain.h"

#include "base/error.h"

namespace mw {

std::string explain_step(const TrainStep& step, int64_t batch, int64_t seq, const std::string& after) {
  std::string text, previous;
  std::vector<std::string> known{"memory", "collectives"};
  const Plan plan = step.make_plan(batch, seq, [&](std::string_view pass, const Plan& current) {
    const bool is_after = pass == after, is_before = "before " + std::string(pass) == after;
    if (is_before) text = previous;
    if (is_after) text = list_programs(current);
    if (after.starts_with("before ") && text.empty()) previous = list_programs(current);
    known.emplace_back(pass);
  });
  if (after == "memory") return list_memory(plan);
  if (after == "collectives") return list_collectives(plan);
  if (text.empty()) throw UserError("explain: there is no pass '" + after + "'" + did_you_mean(after, known));
  return text;
}

}  // namespace mw
