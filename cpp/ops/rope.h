// Rotary position embedding (Su et al. 2021).
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

struct RopeAttributes {
  double theta = 10000.0;
  std::string pairing = "half";       // "half": (i, i + d/2); "interleaved": (2i, 2i + 1)
  std::string scaling = "none";       // "none", "linear", "llama3", "yarn"
  double factor = 1.0;                // all but none
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;      // llama3
  int64_t original_positions = 8192;  // llama3, yarn: original_max_position_embeddings
  double beta_fast = 32.0;            // yarn: pairs that turn more often within original_positions keep their frequency
  double beta_slow = 1.0;             // yarn: those that turn less often are slowed down by factor
  bool truncate = true;               // yarn: the range between the two in whole pairs (GPT-OSS: false)
  double attention_factor = 1.0;      // multiplies cos and sin; for yarn usually yarn_attention_factor(...)
  bool inverse = false;               // rotate back: the gradient

  bool operator==(const RopeAttributes&) const = default;
  Attributes to_attributes() const;
  static RopeAttributes from(const Attributes& attributes);
};

// 0.1 mscale ln(factor) + 1 (Peng et al. 2023, 3.4), 1 where factor is at most 1. DeepSeek multiplies the scale of its attention scores by
// the square of yarn_mscale(factor, mscale_all_dim).
double yarn_mscale(double factor, double mscale = 1.0);
// The attention_factor of a configuration that names none; mscale and mscale_all_dim are 0 where it lacks them.
double yarn_attention_factor(double factor, double mscale = 0.0, double mscale_all_dim = 0.0);

// The frequency of each pair, formed in FP32 exactly as transformers forms them: [head_dim / 2].
std::vector<float> rope_frequencies(const RopeAttributes& rope, int64_t head_dim);

// Rotates pairs along the innermost dim of x, whose angle is positions * frequency in FP32. positions: i32 with dims among x's
// (usually [batch, seq]).
Tensor rope(Tensor x, Tensor positions, const RopeAttributes& rope, Source source = Source::here());

}  // namespace mw
