// A whole regular file, mapped for reading. Little is resident until it is touched, and the system may drop it again.
//
//   const MappedFile file("train-00000.tokens");   // UserError: missing, not a regular file, not readable
//   file.bytes().subspan(0, 64)
//
// Whoever shortens the file while it is mapped gets this process a SIGBUS: replace files by rename, never in place.
#pragma once
#include <cstddef>
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

}  // namespace mw
