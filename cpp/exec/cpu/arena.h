// One mapping of memory with huge pages where the system grants them. Pages are zero and cost nothing until they are touched.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mw {

class Arena {
 public:
  Arena() = default;
  explicit Arena(int64_t bytes);  // UserError when the system has not that much
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;

  std::byte* data() const { return data_; }  // aligned to 2 MiB
  int64_t bytes() const { return bytes_; }
  int64_t resident_bytes() const;  // pages touched so far

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  void* mapping_ = nullptr;
  int64_t mapped_bytes_ = 0;
};

}  // namespace mw
