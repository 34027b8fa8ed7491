// What a rank does when: slices of wall-clock time, written down while runs are recorded.
//
//   timeline.begin(num_slices);                       // marking allocates nothing
//   work();
//   timeline.mark(SliceKind::kOp, op);                // from the last mark until now
#pragma once
#include <chrono>
#include <cstdint>
#include <vector>

namespace mw {

enum class SliceKind : uint8_t {
  kOp,        // one op; a collective with its waiting
  kStart,     // of a collective in flight: its start,
  kFinish,    // the wait for its end,
  kInFlight,  // and from the one to the other, beside everything else
  kProgress,  // what is in flight moved on between two ops
  kBegin,     // in front of the first row: inputs are checked, ranks wake up
  kInputs,    // this rank's part of the batch
  kReceive,   // waits for letters of other stages
  kSend,
  kAgree,  // ranks tell each other whether to go on
  kShare,  // results over stages; ranks whose stage is done wait here for the others
  kEnd,    // waits for the other ranks of this process
};

struct TimeSlice {
  int64_t begin, end;  // nanoseconds of the steady clock
  int32_t row;         // of Plan::order; -1: before the first or after the last
  int32_t op;          // in the Program of its piece; -1: none
  SliceKind kind;
};

// Of one rank; its thread alone marks. Slices but for those in flight follow each other without gaps.
class Timeline {
 public:
  static constexpr int64_t kShort = 1000;  // nanoseconds; for what most often has nothing to do

  static int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  void begin(size_t most) {
    slices_.clear();
    slices_.reserve(most);
    row = -1;
    last_ = now();
  }
  // One shorter than `least` nanoseconds becomes part of the next.
  void mark(SliceKind kind, int32_t op = -1, int64_t least = 0) {
    const int64_t time = now();
    if (time - last_ < least) return;
    slices_.push_back(TimeSlice{last_, time, row, op, kind});
    last_ = time;
  }
  // A collective that began then and ended at the last mark.
  void mark_in_flight(int32_t op, int64_t began) { slices_.push_back(TimeSlice{began, last_, row, op, SliceKind::kInFlight}); }

  int64_t last() const { return last_; }
  const std::vector<TimeSlice>& slices() const { return slices_; }

  int32_t row = -1;  // under way

 private:
  int64_t last_ = 0;
  std::vector<TimeSlice> slices_;
};

}  // namespace mw
