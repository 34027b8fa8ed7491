// How many parameters a configuration has, told apart by what they do. The image encoder is counted by formula, as it has no list yet.
#pragma once
#include <cstdint>

#include "models/model_config.h"

namespace mw {

struct ParameterCounts {
  int64_t total = 0;           // trained: text and image encoder, without multi-token prediction
  int64_t embedding = 0;       // of total: the token table
  int64_t positions = 0;       // of total: learned positions
  int64_t head = 0;            // of total; 0 where it is the token table
  int64_t vision = 0;          // of total: image encoder and projector
  int64_t active = 0;          // of the text part: what one token meets, the whole token table included
  int64_t mtp = 0;             // multi-token prediction, without its copies of table and head
  int64_t selection_bias = 0;  // moved by balancing, not trained; without those of multi-token prediction
};

ParameterCounts count_parameters(const ModelConfig& config);

}  // namespace mw
