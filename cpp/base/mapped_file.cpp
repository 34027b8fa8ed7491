#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace mw
