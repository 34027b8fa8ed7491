// What the kernel benchmarks share: huge-page buffers, a timer that takes the best of some runs, and the FMA peak of this minute.
#pragma once
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/gemm_kernels.h"

namespace mw::bench {

struct FreeBuffer {
  void operator()(void* p) const { std::free(p); }
};
// At least `bytes` zero bytes on huge pages where the system grants them.
inline std::unique_ptr<void, FreeBuffer> buffer(int64_t bytes) {
  constexpr int64_t kHugePage = 2 << 20;
  const int64_t rounded = std::max(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
  void* p = std::aligned_alloc(kHugePage, rounded);
  madvise(p, rounded, MADV_HUGEPAGE);
  std::memset(p, 0, rounded);
  return std::unique_ptr<void, FreeBuffer>(p);
}

// Seconds on `clock` since some fixed moment.
inline double now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Best of some runs. With one thread it is that thread's processor time, which other programs on the machine disturb least.
template <typename F>
double best_seconds(const ThreadPool& pool, int repeats, F&& f) {
  const clockid_t clock = pool.threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const double start = now(clock);
    f();
    best = std::min(best, now(clock) - start);
  }
  return best;
}

// FLOP/s of multiply-adds in registers, on all threads of the pool.
inline double fma_peak(const GemmKernels& kernels, bool pairs, ThreadPool& pool) {
  const auto loop = pairs ? kernels.bf16_peak : kernels.fma_peak;
  constexpr int64_t kRounds = 20000, kTilesPerThread = 32;
  const double flops = loop(kRounds) * static_cast<double>(kTilesPerThread * pool.threads());
  return flops / best_seconds(pool, 10, [&] { pool.run(kTilesPerThread * pool.threads(), [&](int64_t, int) { loop(kRounds); }); });
}

// Numbers in [-scale, scale), the same on every run for the same seed.
inline void fill_random(void* x, int64_t n, bool bf16, uint64_t seed, float scale = 1.0f) {
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (int64_t i = 0; i < n; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const float value = scale * (static_cast<float>(state >> 40) / (1 << 23) - 1.0f);
    if (bf16) {
      static_cast<BF16*>(x)[i] = to_bf16(value);
    } else {
      static_cast<float*>(x)[i] = value;
    }
  }
}

}  // namespace mw::bench
