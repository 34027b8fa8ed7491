#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace mw {
namespace {

constexpr int64_t kPeriod = 16384;
constexpr size_t kMaxSources = 1024;

}  // namespace

Mixture::Mixture(std::span<const double> weights) {
  const size_t num_sources = weights.size();
  if (num_sources < 1 || num_sources > kMaxSources) {
    throw UserError(concat_text("expected 1 to ", kMaxSources, " data sources, found ", num_sources));
  }
  double total = 0;
  for (size_t i = 0; i < num_sources; ++i) {
    if (!(weights[i] > 0) || !std::isfinite(weights[i])) {
      throw UserError(concat_text("data source ", i, ": expected a weight above 0, found ", weights[i]));
    }
    total += weights[i];
  }
  if (!std::isfinite(total)) throw UserError("the weights of the data sources are too large to be added");
  const int64_t period = num_sources == 1 ? 1 : kPeriod;
  std::vector<double> exact;
  for (const double weight : weights) {
    exact.push_back(weight / total * static_cast<double>(period));
    counts_.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact.back())));
  }
  // What rounding left over goes, one by one, to the source that lacks most; what the minimum of one took too many is taken back.
  int64_t left = period - std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
  for (; left != 0; left += left > 0 ? -1 : 1) {
    size_t chosen = num_sources;
    double most = 0;
    for (size_t i = 0; i < num_sources; ++i) {
      const double lack = (exact[i] - static_cast<double>(counts_[i])) * (left > 0 ? 1 : -1);
      if ((left > 0 || counts_[i] > 1) && (chosen == num_sources || lack > most)) {
        chosen = i;
        most = lack;
      }
    }
    counts_[chosen] += left > 0 ? 1 : -1;
  }

  std::vector<int64_t> given(num_sources, 0);
  for (int64_t slot = 0; slot < period; ++slot) {
    size_t next = 0;
    int64_t most_behind = -1;
    for (size_t i = 0; i < num_sources; ++i) {
      const int64_t behind = counts_[i] * (slot + 1) - period * given[i];
      if (given[i] < counts_[i] && behind > most_behind) {
        most_behind = behind;
        next = i;
      }
    }
    period_.push_back({static_cast<int64_t>(next), given[next]++});
  }
}

Mixture::Place Mixture::at(int64_t sample) const {
  MW_CHECK(sample >= 0, sample);
  const auto period = static_cast<int64_t>(period_.size());
  const Place place = period_[static_cast<size_t>(sample % period)];
  return {place.source, sample / period * counts_[static_cast<size_t>(place.source)] + place.index};
}

}  // namespace mw
