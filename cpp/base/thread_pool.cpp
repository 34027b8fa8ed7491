#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace mw {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(200);

// Which pool's tile this thread is inside of, and as which worker: for nested runs.
thread_local const ThreadPool* current_pool = nullptr;
thread_local int current_worker = 0;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until ready() or the spin time has passed; returns ready().
template <typename Ready>
bool spin_until(Ready ready) {
  const auto end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return ready();
}

}  // namespace

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) : threads_(threads == 0 ? usable_processors() : threads) {
  if (threads_ < 1 || threads_ > 4096) throw UserError(concat_text("a thread pool has 1 to 4096 threads, not ", threads));
  if (threads_ == 1) return;
  shares_ = std::make_unique<Share[]>(threads_);
  workers_ = std::make_unique<std::thread[]>(threads_ - 1);
  for (int i = 1; i < threads_; ++i) workers_[i - 1] = std::thread([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(sleep_mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (int i = 1; i < threads_; ++i) workers_[i - 1].join();
}

void ThreadPool::work(int worker) {
  uint64_t seen = 0;
  const auto called = [&] { return announced_.load(std::memory_order_seq_cst) != seen || stop_.load(std::memory_order_relaxed); };
  while (!stop_.load(std::memory_order_relaxed)) {
    if (spin_until(called)) {
      seen = announced_.load(std::memory_order_acquire);
      run_claims(worker);
      continue;
    }
    std::unique_lock lock(sleep_mutex_);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);  // before the last look at announced_: the caller looks in the other order
    wake_.wait(lock, called);
    sleeping_.fetch_sub(1, std::memory_order_seq_cst);
  }
}

// One group at a time of its own share, from the front; of another's from the end, several while many are left there.
int64_t ThreadPool::claim(int worker, int share) {
  const bool own = worker == share;
  std::atomic<uint64_t>& left = shares_[share].word;
  int64_t done = 0;
  uint64_t word = left.load(std::memory_order_acquire);
  while (true) {
    const int64_t next = static_cast<int64_t>(word >> kGroupBits & kGroupMask), end = static_cast<int64_t>(word & kGroupMask);
    if (next >= end) return done;
    const TileFunction function = function_.load(std::memory_order_relaxed);
    void* const body = body_.load(std::memory_order_relaxed);
    const int64_t total = total_.load(std::memory_order_relaxed), group = group_.load(std::memory_order_relaxed);
    const int64_t groups = own ? 1 : std::max<int64_t>(1, (end - next) / (2 * threads_)), first = own ? next : end - groups;
    const uint64_t taken = static_cast<uint64_t>(groups), rest = own ? word + (taken << kGroupBits) : word - taken;
    if (!left.compare_exchange_weak(word, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    for (int64_t tile = first * group; tile < std::min(total, (first + groups) * group) && !failed_.load(std::memory_order_relaxed);
         ++tile) {
      try {
        function(body, tile, worker);
      } catch (...) {
        std::lock_guard lock(error_mutex_);
        if (!error_ || tile < error_tile_) {
          error_ = std::current_exception();
          error_tile_ = tile;
        }
        failed_.store(true, std::memory_order_relaxed);
      }
    }
    done += groups;
    word = left.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_claims(int worker) {
  const ThreadPool* const outer_pool = std::exchange(current_pool, this);
  const int outer_worker = std::exchange(current_worker, worker);
  int64_t done = 0;
  for (int i = 0; i < threads_; ++i) done += claim(worker, (worker + i) % threads_);
  current_pool = outer_pool;
  current_worker = outer_worker;
  if (done > 0) done_.fetch_add(done, std::memory_order_release);
}

void ThreadPool::run_tiles(int64_t tiles, TileFunction function, void* body) {
  if (tiles <= 0) return;
  if (current_pool == this || threads_ == 1) {
    const int worker = current_pool == this ? current_worker : 0;
    for (int64_t tile = 0; tile < tiles; ++tile) function(body, tile, worker);
    return;
  }
  std::lock_guard region_lock(caller_mutex_);
  const int64_t group = (tiles - 1) / static_cast<int64_t>(kGroupMask) + 1, groups = (tiles - 1) / group + 1;
  function_.store(function, std::memory_order_relaxed);
  body_.store(body, std::memory_order_relaxed);
  total_.store(tiles, std::memory_order_relaxed);
  group_.store(group, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  const uint64_t region = announced_.load(std::memory_order_relaxed) + 1;
  const auto start = [&](int64_t share) { return static_cast<uint64_t>((share * groups + threads_ - 1) / threads_); };
  for (int i = 0; i < threads_; ++i) {
    shares_[i].word.store(region << 2 * kGroupBits | start(i) << kGroupBits | start(i + 1), std::memory_order_release);
  }
  announced_.store(region, std::memory_order_seq_cst);
  if (tiles > 1 && sleeping_.load(std::memory_order_seq_cst) > 0) {
    {
      std::lock_guard lock(sleep_mutex_);
    }
    wake_.notify_all();
  }
  run_claims(0);
  const auto finished = [&] { return done_.load(std::memory_order_acquire) == groups; };
  while (!spin_until(finished)) std::this_thread::yield();
  if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace mw
