// XXH64: a fast 64-bit checksum against accidents (torn writes, flipped bits), not against forgery.
// Algorithm: github.com/Cyan4973/xxHash, doc/xxhash_spec.md (seed 0).
//
//   Xxhash64 hash;  hash.update(header);  hash.update(body);  hash.digest();
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace mw {

class Xxhash64 {
 public:
  Xxhash64();
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;  // of everything so far; more may follow

 private:
  void consume_stripe(const std::byte* stripe);

  std::array<uint64_t, 4> lanes_;
  std::array<std::byte, 32> pending_{};
  size_t num_pending_ = 0;
  uint64_t num_bytes_ = 0;
};

uint64_t xxhash64(std::span<const std::byte> bytes);
std::string hex16(uint64_t value);  // 16 lower-case hexadecimal digits

}  // namespace mw
