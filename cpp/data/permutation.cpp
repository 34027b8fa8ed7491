#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace mw {
namespace {

constexpr uint64_t kRounds = 8;

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed, uint64_t epoch, std::string_view name)
    : stream_(seed, epoch, name), size_(static_cast<uint64_t>(size)) {
  MW_CHECK(size >= 1, size);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(size_ - 1)) + 1) / 2);
}

int64_t Permutation::operator()(int64_t index) const {
  MW_CHECK(index >= 0 && static_cast<uint64_t>(index) < size_, index, " of ", size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      // A half has at most 32 bits, so (round, half) is an index of its own in the stream.
      const uint64_t mixed = left ^ (stream_.word(round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    value = left << half_bits_ | right;
  } while (value >= size_);
  return static_cast<int64_t>(value);
}

}  // namespace mw
