#include "exec/cpu/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "base/error.h"

namespace mw {
namespace {
constexpr int64_t kHugePage = int64_t{2} << 20;
}

Arena::Arena(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  mapped_bytes_ = bytes + kHugePage;
  mapping_ = mmap(nullptr, static_cast<size_t>(mapped_bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw UserError("the system has no " + std::to_string(bytes >> 20) + " MiB of memory for one arena; plan a smaller batch, a shorter sequence or remat=full");
  }
  const uintptr_t start = (reinterpret_cast<uintptr_t>(mapping_) + kHugePage - 1) & ~static_cast<uintptr_t>(kHugePage - 1);
  data_ = reinterpret_cast<std::byte*>(start);
  // A small arena would pay a whole huge page for a few bytes.
  if (bytes >= kHugePage) madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

Arena::~Arena() {
  if (mapping_) munmap(mapping_, static_cast<size_t>(mapped_bytes_));
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

int64_t Arena::resident_bytes() const {
  if (bytes_ == 0) return 0;
  const int64_t page = sysconf(_SC_PAGESIZE);
  std::vector<unsigned char> present(static_cast<size_t>((bytes_ + page - 1) / page));
  if (mincore(data_, static_cast<size_t>(bytes_), present.data()) != 0) return 0;
  int64_t pages = 0;
  for (const unsigned char p : present) pages += p & 1;
  return pages * page;
}

}  // namespace mw
