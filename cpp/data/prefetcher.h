// Reads the next batches in a thread of its own while the current one is being trained on.
//
//   Prefetcher batches(loader, {.first = sample, .stride = 8, .rows = 8});
//   Batch batch = batches.next();                    // samples [first, first + rows), then stride later, ...
//
// It holds no state that matters: what has been read ahead is simply read again after a restart.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "data/loader.h"

namespace mw {

struct PrefetchRange {
  int64_t first = 0;   // first sample of the first batch
  int64_t stride = 0;  // samples from one batch to the next: the global batch
  int64_t rows = 0;    // samples of each batch: those of one rank
};

class Prefetcher {
 public:
  Prefetcher(std::shared_ptr<const Loader> loader, PrefetchRange range, size_t depth = 2);
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher();

  Batch next();  // what reading threw is thrown here, and again on every later call

 private:
  void work();

  std::shared_ptr<const Loader> loader_;
  PrefetchRange range_;
  size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> ready_;
  std::exception_ptr error_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace mw
