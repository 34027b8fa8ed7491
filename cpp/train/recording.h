// What the ranks of this process did in optimizer steps, each op with its wall-clock time and its work: the raw material of a profile.
//
//   Recording recording;
//   step.record(&recording);
//   step.run(batch, loss_scale, lr);
//   step.record(nullptr);
//   for (const RecordedSlice& slice : recording.slices()) ... recording.work()[slice.work] ...
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "exec/engine.h"

namespace mw {

// What a slice is spent on; the same for all microbatches and steps.
struct RecordedWork {
  std::string kind;   // "compute", "collective", "start", "finish", "in flight", "progress", "mail", "wait", "other"
  std::string piece;  // "forward", "backward (first)"; "" outside the pieces
  std::string name;   // of the op ("dot"), or what else is done ("receive")
  std::string scope;  // "layers.3.mlp.gate"
  std::string types;  // "f32[..], f32[..] -> f32[..]"
  std::string kernel;
  std::string dtype;  // whose peak rate bounds a matrix product; "" for other ops
  double flops = 0;   // by this rank; rows of experts as if all were chosen equally often
  double bytes = 0;   // of memory, each operand and result once
  double sent = 0;    // by this rank to others
  struct Letter {
    std::string name;
    int64_t peer;  // rank that it comes from or goes to
    int64_t bytes;
  };
  std::vector<Letter> letters{};  // of mail
  std::string source{}, pass{};   // where the op was written, and the pass that made it
};

struct RecordedSlice {
  int64_t work;             // index into Recording::work
  int64_t rank, step;       // steps count from 1
  int64_t row, microbatch;  // row of the Plan's order; -1: outside the pieces
  int64_t begin, end;       // nanoseconds of the steady clock
};

class Recording {
 public:
  // The last run of this Plan.
  void add(int64_t step, const LoadedPlan& loaded, const Engine& engine);

  const std::vector<RecordedWork>& work() const { return work_; }
  // By step, then by rank; of one rank in the order in which they end.
  const std::vector<RecordedSlice>& slices() const { return slices_; }
  // Where each rank of this process stands in the mesh: "stage=1 tensor=0", axes of one rank left out.
  const std::map<int64_t, std::string>& places() const { return places_; }
  int threads_per_rank() const { return threads_per_rank_; }

 private:
  int64_t remember(RecordedWork work);

  std::vector<RecordedWork> work_;
  std::vector<RecordedSlice> slices_;
  std::map<int64_t, std::string> places_;
  int threads_per_rank_ = 0;
  std::map<std::string, int64_t> known_;                                          // by everything that it says
  int64_t plan_ = 0;                                                              // that the next ones are of: its number
  std::map<std::tuple<int64_t, SliceKind, int32_t, int32_t>, int64_t> of_slice_;  // by stage (mail: by rank), kind, piece, op
};

}  // namespace mw
