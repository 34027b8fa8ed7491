// Checkpoints of a training run: the model as a Hugging Face folder, and in `trainer/` the optimizer's state and trainer.json.
//
//   TrainCheckpointer checkpointer;
//   checkpointer.save(session, step, {.folder = "runs/a/step-00000100", .small_files = files, .state = state, .keep_last = 3});
//   ... checkpointer.poll() at step boundaries, checkpointer.wait() before leaving ...
//   TrainerState state = load_checkpoint(session, &step, "runs/a/step-00000100", false);
#pragma once
#include <string>
#include <vector>

#include "checkpoint/trainer_state.h"
#include "checkpoint/writer.h"
#include "train/train_step.h"

namespace mw {

struct CheckpointRequest {
  std::string folder;
  std::vector<SmallFile> small_files;  // config.json, tokenizer files
  TrainerState state;                  // its weight digests are filled when the files are written
  int keep_last = 0;
};

class TrainCheckpointer {
 public:
  // Copies weights and state (the ranks must be between two steps), then returns; a thread writes them.
  void save(Session& session, TrainStep& step, CheckpointRequest request);
  bool poll() { return writer_.poll(); }
  void wait() { writer_.wait(); }
  int64_t staging_bytes() const { return writer_.staging_bytes(); }

 private:
  CheckpointWriter writer_;
};

// Reads weights and, unless `reset_optimizer`, the optimizer's state into `step`. UserError when the weight files are not those that
// the state belongs to, or the state is of another optimizer.
TrainerState load_checkpoint(Session& session, TrainStep& step, const std::string& folder, bool reset_optimizer);

// Writes the model alone, in the caller's thread, tensor by tensor (staged whole where ranks are processes, which call it together).
// `dtype`: of the files. `keep_quantized`: weights that were published in FP8 or MXFP4 are written as they were read, byte by byte.
// UserError when there are none, or the weights have changed since.
void save_model(Session& session, const std::string& folder, DType dtype, std::vector<SmallFile> small_files, bool keep_quantized = false);

}  // namespace mw
