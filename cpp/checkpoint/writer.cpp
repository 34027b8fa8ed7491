#include "checkpoint/writer.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
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
#include "comm/agreement.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

std::string path_in(const std::string& folder, const std::string& path) {
  MW_CHECK(stays_inside(path), "path ", in_quotes(path), " leaves the checkpoint folder");
  const std::string full = folder + "/" + path;
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
    digests[path] = write_file(path_in(pending.path(), path), tensor_index_text(index.weight_map, index.bytes));
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
FileDigests write_files_by_writer(const std::vector<PlannedFile>& all, const std::string& folder, const WriteTensor& write_tensor) {
  std::map<int, std::vector<const PlannedFile*>> files_of;
  for (const PlannedFile& file : all) files_of[file.writer].push_back(&file);
  std::mutex mutex;
  FileDigests digests;
  std::exception_ptr error;
  std::vector<std::thread> threads;
  for (const auto& [writer, files] : files_of) {
    threads.push_back(start_quiet_thread([&, files = &files] {
      try {
        for (const PlannedFile* file : *files) {
          const FileDigest digest = write_tensor_file(path_in(folder, file->path), *file, write_tensor);
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

// All that follows the tensor files, the commit included.
FileDigests finish_folder(const SaveRequest& request, PendingFolder& pending, const FileDigests& tensor_files) {
  FileDigests digests = tensor_files;
  write_indexes(request, pending, digests);
  for (const SmallFile& file : request.small_files) {
    MW_CHECK(!digests.contains(file.path) && file.path != kManifestName, "file ", in_quotes(file.path), " is given twice");
    digests[file.path] = write_file(path_in(pending.path(), file.path), file.make ? file.make(tensor_files) : file.bytes);
  }
  write_file(path_in(pending.path(), kManifestName), manifest_text(digests));
  pending.commit();
  if (request.keep_last > 0) keep_newest(pending.parent(), request.keep_last, request.folder);
  return digests;
}

std::string staged_key(const std::string& stem, const std::string& name) { return stem + '\0' + name; }

}  // namespace

FileDigests save_now(const SaveRequest& request, const WriteTensor& write_tensor) {
  PendingFolder pending(request.folder);
  FileDigests digests;
  for (const PlannedFile& file : request.files)
    digests[file.path] = write_tensor_file(path_in(pending.path(), file.path), file, write_tensor);
  return finish_folder(request, pending, digests);
}

int64_t staging_bytes(std::span<const PlannedFile> files) {
  int64_t bytes = 0;
  for (const PlannedFile& file : files) {
    for (const TensorSpec& tensor : file.tensors) bytes += (tensor.num_bytes() + 63) / 64 * 64;
  }
  return bytes;
}

struct CheckpointWriter::State {
  // What the thread works on. With processes there is a meeting after each.
  enum class Work { kNone, kFiles, kFinish };

  SaveRequest request;
  Communicator* ranks = nullptr;
  std::vector<PlannedFile> own_files;
  StagingMemory memory;
  std::unordered_map<std::string, StagedTensor> tensors;
  bool begun = false;
  Work work = Work::kNone;
  std::string folder;                      // pending
  std::unique_ptr<PendingFolder> pending;  // of the rank that commits
  FileDigests tensor_files;
  std::thread thread;
  std::atomic<bool> running = false;
  std::mutex error_mutex;
  std::exception_ptr error;

  bool is_first() const { return ranks == nullptr || ranks->rank() == 0; }

  void start(Work next, std::function<void()> body) {
    work = next;
    running = true;
    thread = start_quiet_thread([this, body = std::move(body)] {
      try {
        body();
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        error = std::current_exception();
      }
      running = false;
    });
  }

  void write_files() {
    const WriteTensor staged = [this](const PlannedFile& file, const TensorSpec& tensor, const Sink& sink) {
      sink({memory.data() + tensors.at(staged_key(file.stem, tensor.name)).offset, static_cast<size_t>(tensor.num_bytes())});
    };
    tensor_files = write_files_by_writer(own_files, folder, staged);
  }
  void finish() {
    finish_folder(request, *pending, tensor_files);
    pending = nullptr;
  }

  // What the thread that has ended says; "" when all is well.
  std::exception_ptr join() {
    if (thread.joinable()) thread.join();
    const std::lock_guard lock(error_mutex);
    return std::exchange(error, nullptr);
  }

  void end() {
    pending = nullptr;  // without a commit: removed
    work = Work::kNone;
  }

  // One meeting of the processes; true when the save is over.
  bool meet() {
    const Group all = everyone(*ranks);
    std::vector<int64_t> still(static_cast<size_t>(all.size()));
    const int64_t mine = running ? 1 : 0;
    ranks->all_gather(all, &mine, still.data(), sizeof mine);
    if (std::find(still.begin(), still.end(), 1) != still.end()) return false;
    std::string problem;
    if (const std::exception_ptr failed = join()) {
      try {
        std::rethrow_exception(failed);
      } catch (const std::exception& e) {
        problem = e.what();
      }
    }
    const std::vector<std::string> problems = gather_texts(*ranks, all, problem);
    for (size_t r = 0; r < problems.size(); ++r) {
      if (problems[r].empty()) continue;
      end();
      throw UserError(concat_text("rank ", r, ": ", problems[r]));
    }
    if (work == Work::kFinish) {
      end();
      return true;
    }
    for (const std::string& text : gather_texts(*ranks, all, manifest_text(tensor_files)))
      tensor_files.merge(parse_manifest(text, "a rank"));
    if (is_first()) {
      start(Work::kFinish, [this] { finish(); });
    } else {
      work = Work::kFinish;
    }
    return false;
  }
};

CheckpointWriter::CheckpointWriter() : state_(std::make_unique<State>()) {}

CheckpointWriter::~CheckpointWriter() {
  if (state_->thread.joinable()) state_->thread.join();
}

void CheckpointWriter::begin(SaveRequest request, Communicator* ranks) {
  wait();
  state_->ranks = ranks != nullptr && ranks->size() > 1 ? ranks : nullptr;
  state_->request = std::move(request);
  state_->tensors.clear();
  state_->tensor_files.clear();
  state_->own_files.clear();
  for (const PlannedFile& file : state_->request.files) {
    if (writes(file)) state_->own_files.push_back(file);
  }
  if (state_->ranks) open_shared_folder();
  state_->memory.reserve(static_cast<size_t>(mw::staging_bytes(state_->own_files)));
  size_t offset = 0;
  for (const PlannedFile& file : state_->own_files) {
    for (const TensorSpec& tensor : file.tensors) {
      StagedTensor staged{&tensor, offset, std::make_unique<std::atomic<int64_t>>(0)};
      offset += static_cast<size_t>((tensor.num_bytes() + 63) / 64 * 64);
      const bool added = state_->tensors.emplace(staged_key(file.stem, tensor.name), std::move(staged)).second;
      MW_CHECK(added, "tensor ", in_quotes(tensor.name), " stands twice among the files of ", file.stem);
    }
  }
  state_->begun = true;
}

bool CheckpointWriter::writes(const PlannedFile& file) const { return state_->ranks == nullptr || file.writer == state_->ranks->rank(); }

// The first rank makes the folder that is to become the checkpoint; all others must see it.
void CheckpointWriter::open_shared_folder() {
  std::string made, problem;
  if (state_->is_first()) {
    try {
      state_->pending = std::make_unique<PendingFolder>(state_->request.folder);
      made = state_->pending->path();
    } catch (const UserError& e) {
      problem = e.what();
    }
  }
  const Group all = everyone(*state_->ranks);
  problem = gather_texts(*state_->ranks, all, problem)[0];
  if (!problem.empty()) throw UserError(problem);
  state_->folder = gather_texts(*state_->ranks, all, made)[0];
  std::error_code ignored;
  const std::vector<std::string> seen = gather_texts(*state_->ranks, all, fs::is_directory(state_->folder, ignored) ? "seen" : "");
  std::string blind;
  for (size_t r = 0; r < seen.size(); ++r) {
    if (seen[r].empty()) blind += (blind.empty() ? "" : ", ") + std::to_string(r);
  }
  if (blind.empty()) return;
  state_->end();
  throw UserError(printable(state_->request.folder, 1000) + ": rank 0 made this checkpoint's folder, but rank " + blind +
                  " does not see it; expected a folder that all ranks share");
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
  for (const PlannedFile& file : state_->own_files) {
    for (const TensorSpec& tensor : file.tensors) {
      const int64_t num_put = *state_->tensors.at(staged_key(file.stem, tensor.name)).num_put;
      MW_CHECK(num_put == num_elements(tensor.shape), "tensor ", in_quotes(tensor.name), " of ", file.stem, ": ", num_put, " of ",
               num_elements(tensor.shape), " elements were put");
    }
  }
  state_->begun = false;
  state_->start(State::Work::kFiles, [state = state_.get()] {
    if (state->ranks) return state->write_files();
    state->pending = std::make_unique<PendingFolder>(state->request.folder);
    state->folder = state->pending->path();
    state->write_files();
    state->finish();
  });
}

bool CheckpointWriter::poll() {
  if (state_->work == State::Work::kNone) return true;
  if (state_->ranks) return state_->meet();
  if (state_->running) return false;
  wait();
  return true;
}

void CheckpointWriter::wait() {
  if (state_->work == State::Work::kNone) return;
  if (state_->ranks) {
    while (!state_->meet()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return;
  }
  const std::exception_ptr failed = state_->join();
  state_->end();
  if (failed) std::rethrow_exception(failed);
}

int64_t CheckpointWriter::staging_bytes() const { return static_cast<int64_t>(state_->memory.bytes()); }

void CheckpointWriter::release_staging() {
  wait();
  state_->memory.release();
}

}  // namespace mw
