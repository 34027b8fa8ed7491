// Which source sample n of a mixture comes from, computed from n: no state and no draw.
//
//   const Mixture mixture({3.0, 1.0});
//   mixture.at(n)      // {source, index}: the how-manieth sample of that source this is
//
// Weights are rounded to counts over a period (1 for one source, else 16384 samples; every source gets at least one), and within the
// period the sources are spread evenly: each sample goes to the source that is furthest behind its share.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace mw {

class Mixture {
 public:
  explicit Mixture(std::span<const double> weights);  // UserError unless all are finite and above 0

  struct Place {
    int64_t source;
    int64_t index;
  };
  Place at(int64_t sample) const;

 private:
  std::vector<Place> period_;
  std::vector<int64_t> counts_;  // samples of each source in one period
};

}  // namespace mw
