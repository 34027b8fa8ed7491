#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

struct OpenFile {
  int descriptor;
  ~OpenFile() { ::close(descriptor); }
};

}  // namespace

std::string system_problem(const std::string& path, const std::string& action, int error) {
  return printable(path, 4096) + ": cannot " + action + ": " + std::generic_category().message(error);
}

std::string read_file(const std::string& path, int64_t max_bytes) {
  if (path.find('\0') != std::string::npos) throw UserError(printable(path) + ": a path cannot hold a NUL byte");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a pipe must not hang us
  if (descriptor < 0) throw UserError(system_problem(path, "open", errno));
  const OpenFile file{descriptor};
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) throw UserError(system_problem(path, "open", errno));
  if (!S_ISREG(status.st_mode)) throw UserError(printable(path, 4096) + ": expected a regular file");
  if (status.st_size > max_bytes) {
    throw UserError(
        concat_text(printable(path, 4096), ": has ", status.st_size, " bytes; at most ", max_bytes, " are expected of such a file"));
  }
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  size_t num_read = 0;
  while (num_read < bytes.size()) {
    const ssize_t got = ::read(descriptor, bytes.data() + num_read, bytes.size() - num_read);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw UserError(system_problem(path, "read", errno));
    if (got == 0) break;  // it shrank meanwhile
    num_read += static_cast<size_t>(got);
  }
  bytes.resize(num_read);
  return bytes;
}

}  // namespace mw
