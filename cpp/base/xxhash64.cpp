#include "base/xxhash64.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace mw {
namespace {

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87, kPrime2 = 0xc2b2ae3d27d4eb4f, kPrime3 = 0x165667b19e3779f9, kPrime4 = 0x85ebca77c2b2ae63,
                   kPrime5 = 0x27d4eb2f165667c5;

template <typename T>
uint64_t load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

uint64_t mix(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }

}  // namespace

Xxhash64::Xxhash64() : lanes_{kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1} {}

void Xxhash64::consume_stripe(const std::byte* stripe) {
  for (size_t i = 0; i < 4; ++i) lanes_[i] = mix(lanes_[i], load<uint64_t>(stripe + 8 * i));
}

void Xxhash64::update(std::span<const std::byte> bytes) {
  num_bytes_ += bytes.size();
  if (num_pending_ > 0) {
    const size_t taken = std::min(bytes.size(), pending_.size() - num_pending_);
    std::copy_n(bytes.begin(), taken, pending_.begin() + static_cast<std::ptrdiff_t>(num_pending_));
    num_pending_ += taken;
    bytes = bytes.subspan(taken);
    if (num_pending_ < pending_.size()) return;
    consume_stripe(pending_.data());
    num_pending_ = 0;
  }
  std::array<uint64_t, 4> lanes = lanes_;  // in registers: the loop runs at memory speed
  size_t at = 0;
  for (; bytes.size() - at >= 32; at += 32) {
    for (size_t i = 0; i < 4; ++i) lanes[i] = mix(lanes[i], load<uint64_t>(bytes.data() + at + 8 * i));
  }
  lanes_ = lanes;
  num_pending_ = bytes.size() - at;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), num_pending_, pending_.begin());
}

uint64_t Xxhash64::digest() const {
  uint64_t hash = kPrime5;
  if (num_bytes_ >= 32) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) hash = (hash ^ mix(0, lane)) * kPrime1 + kPrime4;
  }
  hash += num_bytes_;
  size_t at = 0;
  for (; num_pending_ - at >= 8; at += 8) hash = std::rotl(hash ^ mix(0, load<uint64_t>(&pending_[at])), 27) * kPrime1 + kPrime4;
  for (; num_pending_ - at >= 4; at += 4) hash = std::rotl(hash ^ (load<uint32_t>(&pending_[at]) * kPrime1), 23) * kPrime2 + kPrime3;
  for (; at < num_pending_; ++at) hash = std::rotl(hash ^ (load<uint8_t>(&pending_[at]) * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t xxhash64(std::span<const std::byte> bytes) {
  Xxhash64 hash;
  hash.update(bytes);
  return hash.digest();
}

std::string hex16(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  return text;
}

}  // namespace mw
