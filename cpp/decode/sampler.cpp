#include "decode/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/philox.h"

namespace mw {
namespace {

double log_sum_exp(std::span<const float> logits, float top) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

}  // namespace

void check_sampling(const SamplingOptions& o) {
  const auto wrong = [](const char* name, double value, const char* expected) {
    return UserError(std::string(name) + " is " + std::to_string(value) + "; expected " + expected);
  };
  if (!(o.temperature >= 0)) throw wrong("temperature", o.temperature, "0 or more");
  if (o.top_k < 0) throw wrong("top_k", static_cast<double>(o.top_k), "0 (all tokens) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) throw wrong("top_p", o.top_p, "more than 0 and at most 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) throw wrong("min_p", o.min_p, "0 to 1");
}

SampledToken Sampler::choose(std::span<const float> logits, const SamplingOptions& options, uint64_t request, int64_t position) {
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const float top = logits[static_cast<size_t>(best)];
  const double normaliser = log_sum_exp(logits, top);
  if (!options.do_sample || options.temperature == 0) return {best, top - normaliser};

  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  size_t count = options.top_k > 0 ? std::min<size_t>(static_cast<size_t>(options.top_k), order_.size()) : order_.size();
  const bool sorted = options.top_p < 1 || count < order_.size();
  if (sorted) std::partial_sort(order_.begin(), order_.begin() + static_cast<int64_t>(count), order_.end(), likelier);
  weights_.resize(count);
  double total = 0;
  for (size_t i = 0; i < count; ++i)
    total += weights_[i] = std::exp((static_cast<double>(logits[static_cast<size_t>(order_[i])]) - top) / options.temperature);
  if (options.top_p < 1) {
    double reached = 0;
    for (size_t i = 0; i < count; ++i) {
      reached += weights_[i];
      if (reached >= options.top_p * total) {
        count = i + 1;
        break;
      }
    }
  }
  if (options.min_p > 0) {
    for (size_t i = 0; i < count; ++i) {
      if (weights_[i] < options.min_p) weights_[i] = 0;  // the most likely token has weight 1
    }
  }
  total = std::accumulate(weights_.begin(), weights_.begin() + static_cast<int64_t>(count), 0.0);
  double left = uniform_from(RandomStream(options.seed, request, "sampling").word(static_cast<uint64_t>(position))) * total;
  size_t chosen = 0;
  for (size_t i = 0; i < count; ++i) {
    if (weights_[i] == 0) continue;
    chosen = i;
    left -= weights_[i];
    if (left < 0) break;
  }
  const int32_t id = order_[chosen];
  return {id, logits[static_cast<size_t>(id)] - normaliser};
}

}  // namespace mw
