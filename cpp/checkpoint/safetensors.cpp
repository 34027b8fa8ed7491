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
#include "base/printable.h"

namespace mw {
namespace {

constexpr int64_t kReleaseBytes = 8 << 20;  // file pages held at most while a tensor is copied

}  // namespace

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
  if (size < 8)
    throw UserError(concat_text(name, ": a safetensors file begins with 8 bytes of header length, this file has ", size, " bytes"));
  if (map_error) throw UserError(system_problem(path, "map", map_error));

  SafetensorsFile file(path, static_cast<const std::byte*>(map), size);
  uint64_t header_bytes;
  std::memcpy(&header_bytes, map, 8);
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    throw UserError(concat_text(name, ": its header claims ", header_bytes, " bytes; at most ", kMaxSafetensorsHeaderBytes,
                                " are allowed (is it a safetensors file?)"));
  }
  if (header_bytes > size - 8)
    throw UserError(concat_text(name, ": its header claims ", header_bytes, " bytes, but only ", size - 8, " follow (is it truncated?)"));
  file.data_begin_ = 8 + static_cast<size_t>(header_bytes);
  const std::string_view json(reinterpret_cast<const char*>(file.map_) + 8, static_cast<size_t>(header_bytes));
  file.header_ = parse_safetensors_header(json, size - file.data_begin_, path);
  for (size_t i = 0; i < file.header_.tensors.size(); ++i) file.index_[file.header_.tensors[i].name] = i;
  file.release(file.map_, file.map_ + file.data_begin_);
  return file;
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const StoredTensor& tensor) const {
  return {map_ + data_begin_ + tensor.begin, static_cast<size_t>(tensor.num_bytes())};
}

void SafetensorsFile::release(const std::byte* begin, const std::byte* end) const {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / page * page;
  const uintptr_t last =
      std::min(reinterpret_cast<uintptr_t>(map_) + map_bytes_, (reinterpret_cast<uintptr_t>(end) + page - 1) / page * page);
  // A mapping of a file is never dirty here: the pages leave this process and stay in the system's cache.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
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
  const std::byte* held = nullptr;  // first byte touched since the last release
  int64_t num_copied = 0;
  const std::byte* last = nullptr;
  for_each_run(tensor.shape, slice, [&](int64_t in_tensor, int64_t in_piece, int64_t count) {
    for (int64_t done = 0; done < count;) {
      const int64_t part = std::min(count - done, kReleaseBytes / from_bytes);
      const std::byte* from = data + (in_tensor + done) * from_bytes;
      copy_elements(*stored, from, as, static_cast<std::byte*>(to) + (in_piece + done) * to_bytes, part);
      if (!held) held = from;
      last = from + part * from_bytes;
      done += part;
      num_copied += part * from_bytes;
      if (last - held >= kReleaseBytes || num_copied >= kReleaseBytes) {
        release(held, last);
        held = nullptr;
        num_copied = 0;
      }
    }
  });
  if (held) release(held, last);
}

}  // namespace mw
