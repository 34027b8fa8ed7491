#include "train/profile.h"

#include <time.h>

#include <algorithm>
#include <map>

namespace mw {
namespace {

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// "layers.3.mlp.gate" -> "layers.*.mlp.gate"
std::string without_numbers(const std::string& scope) {
  std::string text;
  for (size_t at = 0; at <= scope.size();) {
    const size_t dot = std::min(scope.find('.', at), scope.size());
    const std::string part = scope.substr(at, dot - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    text += (at > 0 ? "." : "") + (number ? std::string("*") : part);
    at = dot + 1;
  }
  return text;
}

}  // namespace

std::vector<ProfileRow> profile_step(TrainStep& step, const ModelInputs& batch, double loss_scale, double lr, int steps) {
  std::map<std::string, ProfileRow> rows;
  double last = 0;
  const int64_t first = step.first_rank();
  step.observe(batch, [&](int64_t rank, const Program& program, const Op& op, const cpu::KernelRun&) {
    const double now = processor_seconds();
    if (rank == first) {
      const std::string scope = without_numbers(program.scopes[static_cast<size_t>(op.scope)]);
      ProfileRow& row = rows[program.name + " " + std::string(op.def->name) + " " + scope];
      row.piece = program.name;
      row.op = op.def->name;
      row.scope = scope;
      ++row.calls;
      row.seconds += now - last;
      row.flops += cost_of(*op.def, program.signature(op)).flops;
    }
    last = processor_seconds();
  });
  for (int i = 0; i < steps; ++i) {
    last = processor_seconds();
    step.run(batch, loss_scale, lr);
  }
  step.observe(batch, nullptr);
  std::vector<ProfileRow> list;
  for (auto& [key, row] : rows) {
    row.calls /= steps;
    row.seconds /= steps;
    row.flops /= steps;
    list.push_back(row);
  }
  std::sort(list.begin(), list.end(), [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
  return list;
}

}  // namespace mw
