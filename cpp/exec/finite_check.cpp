#include "exec/finite_check.h"

#include <cmath>

namespace mw {

std::string find_not_finite(const Program& program, const Op& op, const cpu::KernelRun& run) {
  for (size_t r = 0; r < op.results.size(); ++r) {
    const Type& type = program.type(op.results[r]);
    if (!is_float(type.dtype)) continue;
    for (int64_t i = 0; i < type.elements(); ++i) {
      const double value = load_element(type.dtype, run.results[r], i);
      if (!std::isfinite(value))
        return program.describe(op) + " made " + (std::isnan(value) ? "a NaN" : "an infinity") + " in " + to_string(type);
    }
  }
  return "";
}

}  // namespace mw
