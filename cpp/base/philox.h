// Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw 2011). A number is a pure function of (seed, step, name,
// index), so any shard, thread or recomputation gets the same one without having drawn those before it.
//
//   const RandomStream stream(seed, step, "layers.3.dropout");
//   fill_uniform(stream, first_index, {mask, count});                        // mask[i] belongs to index first_index + i
//   fill_normal(seed, "model.norm.weight", first, 0.0f, 0.02f, {w, count});  // initial weights: step 0
//
// Key: seed and the 64-bit hash of the name, mixed; counter: step above, index / 4 below; one 32-bit word per index. Everything is
// plain double arithmetic without libm or fused multiply-add, so the bits are the same on every CPU.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace mw {

// One block: ten rounds over a 128-bit counter with a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t step, std::string_view name);
  uint32_t word(uint64_t index) const { return block(index / 4)[index % 4]; }
  std::array<uint32_t, 4> block(uint64_t number) const;  // the words of indices 4 * number .. 4 * number + 3

 private:
  std::array<uint32_t, 2> key_;
  uint64_t step_;
};

float uniform_from(uint32_t word);  // in [0, 1), a multiple of 2^-24
double normal_from(uint32_t word);  // standard normal: inverse distribution function at (word + 1/2) / 2^32, within +-6.4

// out[i] belongs to index first + i.
void fill_uniform(const RandomStream& stream, uint64_t first, std::span<float> out);
void fill_normal(const RandomStream& stream, uint64_t first, float mean, float deviation, std::span<float> out);
void fill_normal(uint64_t seed, std::string_view name, uint64_t first, float mean, float deviation, std::span<float> out);

}  // namespace mw
