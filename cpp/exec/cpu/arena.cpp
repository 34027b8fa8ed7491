#include "exec/cpu/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace mw {

Arena::Arena(int64_t bytes) : bytes_(bytes) {
  MW_CHECK(bytes >= 0, "arena of ", bytes, " bytes");
  if (bytes == 0) return;
  mapping_bytes_ = (bytes + kBaseAlignment - 1) / kBaseAlignment * kBaseAlignment + kBaseAlignment;
  void* mapping =
      mmap(nullptr, static_cast<size_t>(mapping_bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    const int error = errno;
    bytes_ = mapping_bytes_ = 0;
    throw UserError(concat_text("the system refused an arena of ", bytes, " bytes (", std::strerror(error),
                                "): use a smaller batch or sequence, more ranks or a stronger remat policy"));
  }
  mapping_ = mapping;
  const auto address = reinterpret_cast<uintptr_t>(mapping);
  data_ = reinterpret_cast<std::byte*>((address + kBaseAlignment - 1) / kBaseAlignment * kBaseAlignment);
  // A wish: refusal costs speed only. A small arena would pay a whole huge page for a few bytes.
  if (bytes >= kBaseAlignment) madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, static_cast<size_t>(mapping_bytes_));
}

Arena::Arena(Arena&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(std::exchange(other.mapping_bytes_, 0)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

void* Arena::at(int64_t offset) const {
  MW_CHECK(offset >= 0 && offset <= bytes_ && offset % kAlignment == 0, "arena offset ", offset, " of ", bytes_);
  return data_ + offset;
}

int64_t Arena::resident_bytes() const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t pages = (bytes_ + page - 1) / page;
  std::array<unsigned char, 4096> present;
  int64_t resident = 0;
  for (int64_t first = 0; first < pages; first += static_cast<int64_t>(present.size())) {
    const int64_t count = std::min<int64_t>(present.size(), pages - first);
    if (mincore(data_ + first * page, static_cast<size_t>(count * page), present.data()) != 0) continue;
    for (int64_t i = 0; i < count; ++i) resident += present[i] & 1 ? page : 0;
  }
  return resident;
}

void Arena::discard() {
  if (bytes_ > 0) madvise(data_, static_cast<size_t>(mapping_bytes_ - kBaseAlignment), MADV_DONTNEED);
}

}  // namespace mw
