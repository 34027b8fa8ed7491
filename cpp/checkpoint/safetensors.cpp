#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/mapped_file.h"
#include "base/printable.h"

namespace mw {
namespace {

constexpr int64_t kReleaseBytes = 8 << 20;  // file pages held at most while a tensor is copied

UserError too_short(const std::string& name, size_t size) {
  return UserError(concat_text(name, ": a safetensors file begins with 8 bytes of header length, this file has ", size, " bytes"));
}

// Where the data of a file begins: its length field, checked.
size_t data_begin(std::span<const std::byte> file, const std::string& name) {
  if (file.size() < 8) throw too_short(name, file.size());
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    throw UserError(concat_text(name, ": its header claims ", header_bytes, " bytes; at most ", kMaxSafetensorsHeaderBytes,
                                " are allowed (is it a safetensors file?)"));
  }
  if (header_bytes > file.size() - 8) {
    throw UserError(
        concat_text(name, ": its header claims ", header_bytes, " bytes, but only ", file.size() - 8, " follow (is it truncated?)"));
  }
  return 8 + static_cast<size_t>(header_bytes);
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view what) {
  const size_t begin = data_begin(file, printable(what, 1000));
  return parse_safetensors_header({reinterpret_cast<const char*>(file.data()) + 8, begin - 8}, file.size() - begin, what);
}

SafetensorsFile::SafetensorsFile(std::string path, const std::byte* map, size_t map_bytes)
    : path_(std::move(path)), map_(map), map_bytes_(map_bytes) {}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : path_(std::move(other.path_)),
      map_(std::exchange(other.map_, nullptr)),
      map_bytes_(other.map_bytes_),
      data_begin_(other.data_begin_),
      header_(std::move(other.header_)),
      index_(std::move(other.index_)) {}

SafetensorsFile::~SafetensorsFile() {
  if (map_) ::munmap(const_cast<std::byte*>(map_), map_bytes_);
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  static_assert(std::endian::native == std::endian::little, "the files are little-endian");
  if (path.find('\0') != std::string::npos) throw UserError(printable(path) + ": a path cannot hold a NUL byte");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a pipe must not hang us
  if (descriptor < 0) throw UserError(system_problem(path, "open", errno));
  struct stat status{};
  const int stat_error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  const bool regular = S_ISREG(status.st_mode);
  const size_t size = static_cast<size_t>(status.st_size);
  void* map = MAP_FAILED;
  int map_error = 0;
  if (stat_error == 0 && regular && size >= 8) {
    map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    map_error = map == MAP_FAILED ? errno : 0;
  }
  ::close(descriptor);
  if (stat_error) throw UserError(system_problem(path, "open", stat_error));
  const std::string name = printable(path, 1000);
  if (!regular) throw UserError(name + ": expected a regular file");
  if (size < 8) throw too_short(name, size);
  if (map_error) throw UserError(system_problem(path, "map", map_error));

  SafetensorsFile file(path, static_cast<const std::byte*>(map), size);
  file.data_begin_ = data_begin(file.mapping(), name);
  file.header_ = parse_safetensors(file.mapping(), path);
  for (size_t i = 0; i < file.header_.tensors.size(); ++i) file.index_[file.header_.tensors[i].name] = i;
  TouchedPages pages(file.mapping());
  pages.touch(file.mapping().first(file.data_begin_));
  return file;
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return {map_ + data_begin_ + tensor.begin, static_cast<size_t>(tensor.num_bytes())};
}

void SafetensorsFile::read(const StoredTensor& tensor, const Slice& slice, DType as, void* to) const {
  check_slice(tensor.name, tensor.shape, slice);
  const std::optional<DType> stored = dtype_of_stored(tensor.dtype);
  if (!stored || (*stored != as && (!is_float(*stored) || !is_float(as)))) {
    throw UserError(printable(path_, 1000) + ": tensor " + in_quotes(tensor.name) + " is stored as " + tensor.dtype +
                    " and cannot be read as " + std::string(dtype_name(as)));
  }
  const std::byte* data = bytes(tensor).data();
  const int64_t from_bytes = dtype_bytes(*stored), to_bytes = dtype_bytes(as);
  TouchedPages pages(mapping());
  for_each_run(tensor.shape, slice, [&](int64_t in_tensor, int64_t in_piece, int64_t count) {
    for (int64_t done = 0; done < count;) {
      const int64_t part = std::min(count - done, kReleaseBytes / from_bytes);
      const std::byte* from = data + (in_tensor + done) * from_bytes;
      copy_elements(*stored, from, as, static_cast<std::byte*>(to) + (in_piece + done) * to_bytes, part);
      pages.touch({from, static_cast<size_t>(part * from_bytes)});
      done += part;
    }
  });
}

}  // namespace mw
