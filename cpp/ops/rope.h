// Rotary position embedding (Su et al. 2021).
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

struct RopeAttributes {
  double theta = 10000.0;
  std::string pairing = "half";       // "half": (i, i + d/2); "interleaved": (2i, 2i + 1)
  std::string scaling = "none";       // "none", "linear", "llama3"
  double factor = 1.0;                // linear, llama3
  double low_freq_factor = 1.0;       // llama3
  double high_freq_factor = 4.0;      // llama3
  int64_t original_positions = 8192;  // llama3: original_max_position_embeddings
  double attention_factor = 1.0;      // multiplies cos and sin
  bool inverse = false;               // rotate back: the gradient

  bool operator==(const RopeAttributes&) const = default;
  Attributes to_attributes() const;
  static RopeAttributes from(const Attributes& attributes);
};

// The frequency of each pair, formed in FP32 exactly as transformers forms them: [head_dim / 2].
std::vector<float> rope_frequencies(const RopeAttributes& rope, int64_t head_dim);

// Rotates pairs along the innermost dim of x, whose angle is positions * frequency in FP32. positions: i32 with dims among x's
// (usually [batch, seq]).
Tensor rope(Tensor x, Tensor positions, const RopeAttributes& rope, Source source = Source::here());

}  // namespace mw
