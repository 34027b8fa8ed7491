#include "models/initial_weights.h"

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace mw {

void fill_initial(const ParameterSpec& parameter, uint64_t seed, int64_t first, std::span<float> out) {
  switch (parameter.initial) {
    case Initial::kOnes:
      std::fill(out.begin(), out.end(), 1.0f);
      return;
    case Initial::kZeros:
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    case Initial::kNormal:
      fill_normal(seed, parameter.name, static_cast<uint64_t>(first), 0.0f, static_cast<float>(parameter.deviation), out);
      return;
  }
}

void fill_initial_slice(const ParameterSpec& parameter, uint64_t seed, const std::vector<int64_t>& start, const std::vector<int64_t>& sizes,
                        std::span<float> out) {
  const std::vector<Dim>& dims = parameter.type.dims;
  MW_CHECK(start.size() == dims.size() && sizes.size() == dims.size(), parameter.name, ": a slice of another rank");
  // The trailing dims that the slice takes whole, and the one before them, are contiguous: one run.
  size_t outer = dims.size();
  int64_t run = 1, total = 1;
  bool contiguous = true;
  for (size_t d = dims.size(); d-- > 0;) {
    MW_CHECK(start[d] >= 0 && sizes[d] >= 0 && start[d] + sizes[d] <= dims[d].size, parameter.name, ": slice past the end of ",
             dims[d].name);
    total *= sizes[d];
    if (!contiguous) continue;
    run *= sizes[d];
    outer = d;
    contiguous = sizes[d] == dims[d].size;
  }
  MW_CHECK(static_cast<int64_t>(out.size()) == total, parameter.name, ": room for ", out.size(), " elements of ", total);
  const std::vector<int64_t> strides = parameter.type.strides();
  int64_t first = 0;
  for (size_t d = 0; d < dims.size(); ++d) first += start[d] * strides[d];
  std::vector<int64_t> index(outer, 0);
  for (int64_t done = 0; done < total; done += run) {
    fill_initial(parameter, seed, first, out.subspan(static_cast<size_t>(done), static_cast<size_t>(run)));
    for (size_t d = outer; d-- > 0;) {
      first += strides[d];
      if (++index[d] < sizes[d]) break;
      first -= strides[d] * sizes[d];
      index[d] = 0;
    }
  }
}

}  // namespace mw
