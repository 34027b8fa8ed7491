#include "checkpoint/writer.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/commit.h"
#include "checkpoint/folder.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

std::string path_in(const PendingFolder& pending, const std::string& path) {
  MW_CHECK(stays_inside(path), "path ", in_quotes(path), " leaves the checkpoint folder");
  const std::string full = pending.path() + "/" + path;
  make_folders(fs::path(full).parent_path().string());
  return full;
}

std::string name_in_folder(const std::string& path) { return fs::path(path).filename().string(); }

void write_indexes(const SaveRequest& request, const PendingFolder& pending, FileDigests& digests) {
  struct Index {
    std::map<std::string, std::string> weight_map;
    int64_t bytes = 0;
  };
  std::map<std::string, Index> indexes;
  for (const PlannedFile& file : request.files) {
    Index& index = indexes[file.stem];
    index.bytes += file.num_bytes();
    for (const TensorSpec& tensor : file.tensors) {
      MW_CHECK(index.weight_map.emplace(tensor.name, name_in_folder(file.path)).second, "tensor ", in_quotes(tensor.name),
               " stands in two files");
    }
  }
  for (const auto& [stem, index] : indexes) {
    const std::string path = stem + ".safetensors.index.json";
    digests[path] = write_file(path_in(pending, path), tensor_index_text(index.weight_map, index.bytes));
  }
}

// Anonymous memory that is zeroed by the system, not by us, and grows only when a save needs more than the one before.
class StagingMemory {
 public:
  ~StagingMemory() { release(); }
  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    release();
    void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
      throw UserError(system_problem("checkpoint", concat_text("take ", bytes, " bytes of memory to stage it"), errno));
    data_ = static_cast<std::byte*>(map);
    bytes_ = bytes;
  }
  void release() {
    if (data_) ::munmap(data_, bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }
  std::byte* data() { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

struct StagedTensor {
  const TensorSpec* spec = nullptr;
  size_t offset = 0;
  std::unique_ptr<std::atomic<int64_t>> num_put;  // elements
};

// A thread that takes no signals: handlers belong to the threads that expect them.
std::thread start_quiet_thread(std::function<void()> body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

FileDigest write_tensor_file(const std::string& path, const PlannedFile& file, const WriteTensor& write_tensor) {
  SafetensorsWriter writer(path, file.tensors);
  const Sink sink = [&](std::span<const std::byte> bytes) { writer.write(bytes); };
  for (const TensorSpec& tensor : writer.tensors()) write_tensor(file, tensor, sink);
  return writer.finish();
}

// One thread per writing rank, each with its files in order.
FileDigests write_files_by_writer(const SaveRequest& request, const PendingFolder& pending, const WriteTensor& write_tensor) {
  std::map<int, std::vector<const PlannedFile*>> files_of;
  for (const PlannedFile& file : request.files) files_of[file.writer].push_back(&file);
  std::mutex mutex;
  FileDigests digests;
  std::exception_ptr error;
  std::vector<std::thread> threads;
  for (const auto& [writer, files] : files_of) {
    threads.push_back(start_quiet_thread([&, files = &files] {
      try {
        for (const PlannedFile* file : *files) {
          const FileDigest digest = write_tensor_file(path_in(pending, file->path), *file, write_tensor);
          const std::lock_guard lock(mutex);
          digests[file->path] = digest;
        }
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!error) error = std::current_exception();
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  return digests;
}

using WriteTensorFiles = std::function<FileDigests(const PendingFolder&)>;

FileDigests save_folder(const SaveRequest& request, const WriteTensorFiles& write_tensor_files) {
  PendingFolder pending(request.folder);
  const FileDigests tensor_files = write_tensor_files(pending);
  FileDigests digests = tensor_files;
  write_indexes(request, pending, digests);
  for (const SmallFile& file : request.small_files) {
    MW_CHECK(!digests.contains(file.path) && file.path != kManifestName, "file ", in_quotes(file.path), " is given twice");
    digests[file.path] = write_file(path_in(pending, file.path), file.make ? file.make(tensor_files) : file.bytes);
  }
  write_file(path_in(pending, kManifestName), manifest_text(digests));
  pending.commit();
  if (request.keep_last > 0) keep_newest(pending.parent(), request.keep_last, request.folder);
  return digests;
}

std::string staged_key(const std::string& stem, const std::string& name) { return stem + '\0' + name; }

}  // namespace

FileDigests save_now(const SaveRequest& request, const WriteTensor& write_tensor) {
  return save_folder(request, [&](const PendingFolder& pending) {
    FileDigests digests;
    for (const PlannedFile& file : request.files) digests[file.path] = write_tensor_file(path_in(pending, file.path), file, write_tensor);
    return digests;
  });
}

int64_t staging_bytes(std::span<const PlannedFile> files) {
  int64_t bytes = 0;
  for (const PlannedFile& file : files) {
    for (const TensorSpec& tensor : file.tensors) bytes += (tensor.num_bytes() + 63) / 64 * 64;
  }
  return bytes;
}

struct CheckpointWriter::State {
  SaveRequest request;
  StagingMemory memory;
  std::unordered_map<std::string, StagedTensor> tensors;
  std::thread thread;
  std::atomic<bool> writing = false;
  bool begun = false;
  std::mutex error_mutex;
  std::exception_ptr error;

  void write() {
    try {
      const WriteTensor staged = [this](const PlannedFile& file, const TensorSpec& tensor, const Sink& sink) {
        sink({memory.data() + tensors.at(staged_key(file.stem, tensor.name)).offset, static_cast<size_t>(tensor.num_bytes())});
      };
      save_folder(request, [&](const PendingFolder& pending) { return write_files_by_writer(request, pending, staged); });
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      error = std::current_exception();
    }
    writing = false;
  }

  void join_and_rethrow() {
    if (thread.joinable()) thread.join();
    std::exception_ptr failed;
    {
      const std::lock_guard lock(error_mutex);
      failed = std::exchange(error, nullptr);
    }
    if (failed) std::rethrow_exception(failed);
  }
};

CheckpointWriter::CheckpointWriter() : state_(std::make_unique<State>()) {}

CheckpointWriter::~CheckpointWriter() {
  if (state_->thread.joinable()) state_->thread.join();
}

void CheckpointWriter::begin(SaveRequest request) {
  wait();
  state_->request = std::move(request);
  state_->tensors.clear();
  state_->memory.reserve(static_cast<size_t>(mw::staging_bytes(state_->request.files)));
  size_t offset = 0;
  for (const PlannedFile& file : state_->request.files) {
    for (const TensorSpec& tensor : file.tensors) {
      StagedTensor staged{&tensor, offset, std::make_unique<std::atomic<int64_t>>(0)};
      offset += static_cast<size_t>((tensor.num_bytes() + 63) / 64 * 64);
      const bool added = state_->tensors.emplace(staged_key(file.stem, tensor.name), std::move(staged)).second;
      MW_CHECK(added, "tensor ", in_quotes(tensor.name), " stands twice among the files of ", file.stem);
    }
  }
  state_->begun = true;
}

void CheckpointWriter::put(const std::string& stem, const std::string& name, const Slice& slice, DType dtype, const void* piece) {
  MW_CHECK(state_->begun, "put without begin");
  const auto found = state_->tensors.find(staged_key(stem, name));
  if (found == state_->tensors.end())
    throw UserError("tensor " + in_quotes(name) + " is not among the files of '" + stem + "' in this checkpoint");
  StagedTensor& staged = found->second;
  const TensorSpec& spec = *staged.spec;
  check_slice(name, spec.shape, slice);
  std::byte* to = state_->memory.data() + staged.offset;
  for_each_run(spec.shape, slice, [&](int64_t in_tensor, int64_t in_piece, int64_t count) {
    copy_elements(dtype, static_cast<const std::byte*>(piece) + in_piece * dtype_bytes(dtype), spec.dtype,
                  to + in_tensor * dtype_bytes(spec.dtype), count);
  });
  *staged.num_put += num_elements(slice);
}

void CheckpointWriter::launch() {
  MW_CHECK(state_->begun, "launch without begin");
  for (const PlannedFile& file : state_->request.files) {
    for (const TensorSpec& tensor : file.tensors) {
      const int64_t num_put = *state_->tensors.at(staged_key(file.stem, tensor.name)).num_put;
      MW_CHECK(num_put == num_elements(tensor.shape), "tensor ", in_quotes(tensor.name), " of ", file.stem, ": ", num_put, " of ",
               num_elements(tensor.shape), " elements were put");
    }
  }
  state_->begun = false;
  state_->writing = true;
  state_->thread = start_quiet_thread([state = state_.get()] { state->write(); });
}

bool CheckpointWriter::poll() {
  if (state_->writing) return false;
  state_->join_and_rethrow();
  return true;
}

void CheckpointWriter::wait() { state_->join_and_rethrow(); }

int64_t CheckpointWriter::staging_bytes() const { return static_cast<int64_t>(state_->memory.bytes()); }

void CheckpointWriter::release_staging() {
  wait();
  state_->memory.release();
}

}  // namespace mw
