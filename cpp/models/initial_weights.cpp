#include "models/initial_weights.h"

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace mw {

void fill_initial(const ParameterSpec& parameter, const std::string& tensor, uint64_t seed, int64_t first, std::span<float> out) {
  switch (parameter.initial) {
    case Initial::kOnes:
      std::fill(out.begin(), out.end(), 1.0f);
      return;
    case Initial::kZeros:
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    case Initial::kNormal:
      fill_normal(seed, tensor, static_cast<uint64_t>(first), 0.0f, static_cast<float>(parameter.deviation), out);
      return;
  }
}

}  // namespace mw
