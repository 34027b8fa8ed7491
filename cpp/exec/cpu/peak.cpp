#include "exec/cpu/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "exec/cpu/arena.h"
#include "exec/cpu/gemm_kernels.h"

namespace mw {
namespace {

double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_of(double (*loop)(int64_t), ThreadPool& pool) {
  if (loop == nullptr) return 0;
  constexpr int64_t kRounds = 10000;  // a few milliseconds: about what a scheduler grants at once
  const int64_t tiles = 32 * pool.threads();
  const double flops = loop(1) * static_cast<double>(kRounds) * static_cast<double>(tiles);
  return largest_of_short_runs([&] { return flops / seconds_of([&] { pool.run(tiles, [&](int64_t, int) { loop(kRounds); }); }); });
}

}  // namespace

double largest_of_short_runs(const std::function<double()>& measure) {
  constexpr int kPatience = 16, kMost = 128;
  double largest = 0, reached = 0;  // reached: when it last grew by a hundredth
  for (int run = 0, last = 0; run < kMost && run - last < kPatience; ++run) {
    largest = std::max(largest, measure());
    if (largest > 1.01 * reached) reached = largest, last = run;
  }
  return largest;
}

double measure_fma_peak(Isa isa, ThreadPool& pool) { return peak_of(gemm_kernels(isa).fma_peak, pool); }
double measure_bf16_peak(Isa isa, ThreadPool& pool) { return peak_of(gemm_kernels(isa).bf16_peak, pool); }

double measure_read_bandwidth(ThreadPool& pool, int64_t bytes) {
  constexpr int64_t kTile = int64_t{4} << 20;
  const int64_t tiles = std::max<int64_t>(1, bytes / kTile);
  Arena arena(tiles * kTile);
  pool.run(tiles, [&](int64_t tile, int) { std::fill_n(arena.data() + tile * kTile, kTile, std::byte{1}); });
  std::atomic<uint64_t> sum{0};  // uses what was read, so that no read can be left out
  double seconds = 1e30;
  const auto read_all = [&] {
    pool.run(tiles, [&](int64_t tile, int) {
      const auto* words = reinterpret_cast<const uint64_t*>(arena.data() + tile * kTile);
      uint64_t lanes[8] = {};
      for (int64_t i = 0; i < kTile / 8; i += 8) {  // one cache line
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += words[i + lane];
      }
      for (uint64_t lane : lanes) sum.fetch_add(lane, std::memory_order_relaxed);
    });
  };
  for (int i = 0; i < 4; ++i) seconds = std::min(seconds, seconds_of(read_all));
  return sum.load() == 0 ? 0 : static_cast<double>(tiles * kTile) / seconds;
}

Peaks measure_peaks(Isa isa, ThreadPool& pool) {
  ThreadPool one(1);
  return {.f32_one_thread = measure_fma_peak(isa, one),
          .f32_all_threads = measure_fma_peak(isa, pool),
          .bf16_one_thread = measure_bf16_peak(isa, one),
          .bf16_all_threads = measure_bf16_peak(isa, pool),
          .read_one_thread = measure_read_bandwidth(one),
          .read_all_threads = measure_read_bandwidth(pool)};
}

}  // namespace mw
