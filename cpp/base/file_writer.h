// Writing one new file so that an error is never lost: every write, fsync and close is checked, and the bytes are checksummed on
// the way. A full disk and RLIMIT_FSIZE are UserErrors with path, bytes and reason; the signal that the limit sends is held back.
//
//   FileWriter file("model.safetensors");
//   file.write(header);  file.write(body);
//   const FileDigest digest = file.finish();   // on disk, whatever happens to the machine afterwards
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/xxhash64.h"

namespace mw {

struct FileDigest {
  int64_t bytes = 0;
  uint64_t xxh64 = 0;
  bool operator==(const FileDigest&) const = default;
};

class FileWriter {
 public:
  explicit FileWriter(const std::string& path);  // creates or empties the file
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();  // without finish(): closes and leaves the file to the caller to remove

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  FileDigest finish();  // flush, fsync, close

 private:
  void write_through(std::span<const std::byte> bytes);

  std::string path_;
  int descriptor_;
  std::vector<std::byte> buffer_;  // small writes gather here
  Xxhash64 hash_;
  int64_t num_bytes_ = 0;
};

FileDigest write_file(const std::string& path, std::string_view bytes);
FileDigest digest_of_file(const std::string& path);  // reads it all

void make_folder(const std::string& path);   // one level; UserError when it cannot
void make_folders(const std::string& path);  // with its parents; existing ones are fine
void sync_folder(const std::string& path);   // makes its entries durable

}  // namespace mw
