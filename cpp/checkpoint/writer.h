// Saving checkpoints: the caller's tensors are copied (staged) between two steps, a background thread writes them.
//
//   CheckpointWriter writer;                                                   // one per process
//   writer.begin({.folder = "runs/a/step-00000100", .files = assign_files(groups, kMaxFileBytes, num_ranks), .small_files = {...}});
//   writer.put("model", "model.norm.weight", slice, DType::kF32, pointer);     // each rank its pieces; from any thread
//   writer.launch();                                                           // returns at once; training goes on
//   ... writer.poll() at step boundaries, writer.wait() before leaving ...
//
// Where the ranks are processes they all make these calls, with their communicator: each stages and writes the files whose writer it is,
// and once all have reported, at a later poll(), the first rank writes what follows the tensor files. The threads never use the
// communicator; a failure of one is thrown on all of them.
//
// What the thread does: a temporary folder beside the final one; every file written once, by a thread of its writing rank,
// checksummed and fsynced; the index files;
// the small files; manifest.json; fsync of the folders; one rename; fsync of the parent. A reader sees the whole checkpoint or none.
// Any failure (disk full, a size limit, no permission, a parent that is a file) removes the temporary folder, leaves older
// checkpoints as they are and is thrown as UserError by the next poll(), wait() or begin().
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/layout.h"
#include "checkpoint/manifest.h"
#include "comm/communicator.h"

namespace mw {

// config.json, tokenizer files, trainer/trainer.json. `make`, where set, gives the bytes once all tensor files are written.
struct SmallFile {
  std::string path;  // inside the checkpoint folder
  std::string bytes;
  std::function<std::string(const FileDigests& tensor_files)> make;
};

struct SaveRequest {
  std::string folder;
  std::vector<PlannedFile> files;
  std::vector<SmallFile> small_files;
  int keep_last = 0;  // after the commit, keep_newest of the folder's parent; 0 keeps all
};

// Hands over the bytes of one tensor, in any number of pieces in row-major order.
using Sink = std::function<void(std::span<const std::byte>)>;
using WriteTensor = std::function<void(const PlannedFile& file, const TensorSpec& tensor, const Sink& sink)>;

// The same save without staging, in the caller's thread, tensor by tensor (save_pretrained). Returns what the manifest says.
FileDigests save_now(const SaveRequest& request, const WriteTensor& write_tensor);

// Bytes that begin() takes for these files and keeps for the next save; for the memory plan.
int64_t staging_bytes(std::span<const PlannedFile> files);

class CheckpointWriter {
 public:
  CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;
  ~CheckpointWriter();  // waits for the save under way; its error, if nobody asked, is lost

  // Waits for the save before it. `ranks`: of processes, null where all are in this one; it must outlive the save. UserError on all of them
  // where one does not see the folder.
  void begin(SaveRequest request, Communicator* ranks = nullptr);
  // Whether put() wants the tensors of this file: not where another process writes it.
  bool writes(const PlannedFile& file) const;

  // Copies a packed row-major piece into its place, converted to the tensor's dtype. Ranks may call at once with disjoint slices.
  // UserError for an unknown tensor or a slice outside it.
  void put(const std::string& stem, const std::string& name, const Slice& slice, DType dtype, const void* piece);

  // InternalError, naming the tensor, unless every element was put exactly once (by count).
  void launch();

  // True when no save is under way. Throws the error of a failed save, once.
  bool poll();
  void wait();

  int64_t staging_bytes() const;  // held now
  void release_staging();         // gives it back; only when no save is under way

 private:
  void open_shared_folder();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mw
