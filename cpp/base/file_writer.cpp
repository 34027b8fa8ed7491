#include "base/file_writer.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"

namespace mw {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr size_t kMaxWriteBytes = 64 << 20;

// Writing past RLIMIT_FSIZE sends SIGXFSZ, which ends a process that did not ask for it. Blocked in this thread, the write fails
// with EFBIG instead, and the pending signal is taken back.
class HeldFileSizeSignal {
 public:
  HeldFileSizeSignal() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~HeldFileSizeSignal() {
    const timespec none{};
    if (!sigismember(&before_, SIGXFSZ)) {
      while (sigtimedwait(&signal_, nullptr, &none) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t signal_{}, before_{};
};

}  // namespace

FileWriter::FileWriter(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) throw UserError(printable(path) + ": a path cannot hold a NUL byte");
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw UserError(system_problem(path, "create", errno));
}

FileWriter::~FileWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  if (buffer_.size() + bytes.size() <= kBufferBytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    return;
  }
  write_through(buffer_);
  buffer_.clear();
  write_through(bytes);
}

void FileWriter::write_through(std::span<const std::byte> bytes) {
  const HeldFileSizeSignal held;
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), std::min(bytes.size(), kMaxWriteBytes));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      throw UserError(system_problem(path_, concat_text("write ", bytes.size(), " bytes after the first ", num_bytes_), error));
    }
    num_bytes_ += written;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

FileDigest FileWriter::finish() {
  write_through(buffer_);
  buffer_.clear();
  if (::fsync(descriptor_) != 0) throw UserError(system_problem(path_, concat_text("fsync its ", num_bytes_, " bytes"), errno));
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
    throw UserError(system_problem(path_, concat_text("close it after ", num_bytes_, " bytes"), errno));
  }
  return {num_bytes_, hash_.digest()};
}

FileDigest write_file(const std::string& path, std::string_view bytes) {
  FileWriter file(path);
  file.write(bytes);
  return file.finish();
}

FileDigest digest_of_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) throw UserError(system_problem(path, "open", errno));
  std::vector<std::byte> buffer(kBufferBytes);
  Xxhash64 hash;
  FileDigest digest;
  ssize_t got;
  while ((got = ::read(descriptor, buffer.data(), buffer.size())) > 0 || (got < 0 && errno == EINTR)) {
    if (got < 0) continue;
    hash.update(std::span(buffer).first(static_cast<size_t>(got)));
    digest.bytes += got;
  }
  const int error = errno;
  ::close(descriptor);
  if (got < 0) throw UserError(system_problem(path, "read", error));
  digest.xxh64 = hash.digest();
  return digest;
}

void make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) != 0) throw UserError(system_problem(path, "make this folder", errno));
}

void make_folders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw UserError(system_problem(path, "make this folder", error.value()));
  if (!std::filesystem::is_directory(path, error)) throw UserError(printable(path, 1000) + ": expected a folder, found a file");
}

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw UserError(system_problem(path, "open this folder", errno));
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (error && error != EINVAL) throw UserError(system_problem(path, "fsync this folder", error));  // EINVAL: it has nothing to sync
}

}  // namespace mw
