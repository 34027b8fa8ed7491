// What this machine can do at best, measured: the bounds that `meshwright doctor`, MFU and the benchmarks divide by.
//
//   const Peaks peaks = measure_peaks(isa, pool);   // about a third of a second
#pragma once
#include <functional>

#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// The largest of several short measurements, of which there are more while they still get better: other processes may hold a
// processor for a while.
double largest_of_short_runs(const std::function<double()>& measure);

// FLOP/s of multiply-adds that stay in registers, the largest of short runs, on all threads of the pool. bf16: in pairs, 0 where the
// instruction set has none.
double measure_fma_peak(Isa isa, ThreadPool& pool);
double measure_bf16_peak(Isa isa, ThreadPool& pool);

// Bytes/s read from memory that no cache holds (`bytes` of it, on huge pages where granted), on all threads of the pool.
double measure_read_bandwidth(ThreadPool& pool, int64_t bytes = int64_t{512} << 20);

struct Peaks {
  double f32_one_thread, f32_all_threads;    // FLOP/s
  double bf16_one_thread, bf16_all_threads;  // 0 where bf16 is widened to f32
  double read_one_thread, read_all_threads;  // bytes/s
};
Peaks measure_peaks(Isa isa, ThreadPool& pool);

}  // namespace mw
