// A whole regular file, mapped for reading. Little is resident until it is touched, and the system may drop it again.
//
//   const MappedFile file("train-00000.tokens");   // UserError: missing, not a regular file, not readable
//   file.bytes().subspan(0, 64)
//
// Whoever shortens the file while it is mapped gets this process a SIGBUS: replace files by rename, never in place.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace mw {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {begin_, size_}; }

 private:
  std::string path_;
  const std::byte* begin_ = nullptr;  // null for an empty file
  size_t size_ = 0;
};

// Gives pages of a mapped file back while it is being read: what was touched leaves this process every few MiB and stays in the system's
// cache, so resident memory does not grow by the file. One object per thread that reads; `mapping` is a file's, never other memory.
//
//   TouchedPages pages(file.bytes());
//   for (...) { use(part); pages.touch(part); }
class TouchedPages {
 public:
  explicit TouchedPages(std::span<const std::byte> mapping) : mapping_(mapping) {}
  TouchedPages(const TouchedPages&) = delete;
  TouchedPages& operator=(const TouchedPages&) = delete;
  ~TouchedPages() { release(); }

  void touch(std::span<const std::byte> part);  // InternalError when it is not inside the mapping
  void release();

 private:
  std::span<const std::byte> mapping_;
  const std::byte *begin_ = nullptr, *end_ = nullptr;
  size_t num_touched_ = 0;
};

}  // namespace mw
