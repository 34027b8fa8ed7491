// One stretch of memory that a plan's offsets point into.
//
//   Arena arena(plan_bytes);                               // reserved, zero, on huge pages where the system grants them
//   float* x = static_cast<float*>(arena.at(offset));      // offset: a multiple of Arena::kAlignment
//   arena.resident_bytes();                                // what the operating system has really given so far
//
// Nothing is touched here: the kernels that first write a page place it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mw {

class Arena {
 public:
  static constexpr int64_t kAlignment = 64;                    // of every offset
  static constexpr int64_t kBaseAlignment = int64_t{2} << 20;  // of the first byte

  Arena() = default;
  // UserError when the system refuses; the message names the size.
  explicit Arena(int64_t bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  int64_t bytes() const { return bytes_; }
  std::byte* data() const { return data_; }
  void* at(int64_t offset) const;  // InternalError for an offset that is not aligned or lies outside
  int64_t resident_bytes() const;
  void discard();  // gives the pages back; they read as zero afterwards

  static int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  void* mapping_ = nullptr;
  int64_t mapping_bytes_ = 0;
};

}  // namespace mw
