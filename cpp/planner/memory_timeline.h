// Memory of one rank over the time of a step: what lies in scratch and in carried values while a piece runs, and what fills scratch when it
// is fullest.
#pragma once
#include <string>
#include <vector>

#include "planner/step_time.h"

namespace mw {

struct ScopeBytes {
  std::string scope;
  int64_t bytes = 0;
};

struct MemorySample {
  std::string scope;  // "layers.3"
  double seconds = 0;
  int64_t scratch = 0;    // most that is alive in this scope
  int64_t carried = 0;    // likewise, activations of this microbatch
  int64_t gradients = 0;  // likewise, those that lie among them
};

struct PieceMemory {
  std::string piece;
  std::vector<MemorySample> samples;
  double fullest_seconds = 0;
  std::vector<ScopeBytes> fullest;  // scratch at its fullest, by scope with layer numbers as `*`, largest first
};

// `time` is that of the same piece: when its ops start.
PieceMemory memory_over_time(const Piece& piece, const PieceTime& time);

// Largest first.
std::vector<ScopeBytes> sorted_by_bytes(const std::map<std::string, int64_t>& bytes);

}  // namespace mw
