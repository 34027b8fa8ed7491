// A bijection of [0, size) that is computed index by index: shuffling without a buffer, the same on every rank and machine.
//
//   const Permutation order(num_chunks, seed, epoch, "train");   order(i)   // another bijection for every seed, epoch and name
//
// A balanced Feistel network over the next even number of bits (Luby and Rackoff 1988), its round function a Philox word; results
// outside the range are put through again until one falls inside (cycle walking, Black and Rogaway 2002; below 4 times on average).
#pragma once
#include <cstdint>
#include <string_view>

#include "base/philox.h"

namespace mw {

class Permutation {
 public:
  Permutation(int64_t size, uint64_t seed, uint64_t epoch, std::string_view name);
  int64_t operator()(int64_t index) const;

 private:
  RandomStream stream_;
  uint64_t size_;
  int half_bits_;
};

}  // namespace mw
