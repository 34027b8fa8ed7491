// Chooses the next token from a row of logits.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace mw {

struct SamplingOptions {
  bool do_sample = false;  // false: the largest logit, lowest id at a tie
  double temperature = 1.0;
  int64_t top_k = 0;   // 0: all
  double top_p = 1.0;  // the smallest set of most likely tokens whose probability reaches top_p
  double min_p = 0.0;  // tokens at least min_p times as likely as the most likely one
  uint64_t seed = 0;
  bool operator==(const SamplingOptions&) const = default;
};

// UserError naming the option that is out of range.
void check_sampling(const SamplingOptions& options);

struct SampledToken {
  int32_t id;
  double logprob;  // of the model's own distribution, before temperature and cuts
};

class Sampler {
 public:
  // `request` and `position` (of the new token) make the random number: batch and order of requests do not matter.
  SampledToken choose(std::span<const float> logits, const SamplingOptions& options, uint64_t request, int64_t position);

 private:
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

}  // namespace mw
