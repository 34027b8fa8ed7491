#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"

namespace mw {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) throw UserError(printable(path) + ": a path cannot hold a NUL byte");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a pipe must not hang us
  if (descriptor < 0) throw UserError(system_problem(path, "open", errno));
  struct stat status{};
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  const bool regular = S_ISREG(status.st_mode);
  if (!error && regular && status.st_size > 0) {
    void* map = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, descriptor, 0);
    error = map == MAP_FAILED ? errno : 0;
    if (!error) {
      begin_ = static_cast<const std::byte*>(map);
      size_ = static_cast<size_t>(status.st_size);
    }
  }
  ::close(descriptor);
  if (error) throw UserError(system_problem(path, "map", error));
  if (!regular) throw UserError(printable(path, 4096) + ": expected a regular file");
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), begin_(std::exchange(other.begin_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (begin_) ::munmap(const_cast<std::byte*>(begin_), size_);
}

void TouchedPages::touch(std::span<const std::byte> part) {
  constexpr size_t kMostBytes = 8 << 20;
  if (part.empty()) return;
  MW_CHECK(part.data() >= mapping_.data() && part.data() + part.size() <= mapping_.data() + mapping_.size(), "pages of other memory");
  begin_ = begin_ ? std::min(begin_, part.data()) : part.data();
  end_ = end_ ? std::max(end_, part.data() + part.size()) : part.data() + part.size();
  num_touched_ += part.size();
  if (num_touched_ >= kMostBytes || static_cast<size_t>(end_ - begin_) >= kMostBytes) release();
}

void TouchedPages::release() {
  if (!begin_) return;
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin_) / page * page;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(end_) + page - 1) / page * page;  // a mapping's last page is all its own
  // A mapping of a file is never dirty here: the pages leave this process and stay in the system's cache.
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  begin_ = end_ = nullptr;
  num_touched_ = 0;
}

}  // namespace mw
