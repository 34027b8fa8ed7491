// How far the clock falls under each kind of work, beside the FLOP/s: a chain of dependent multiplications, right after the work and on the
// same processor, tells cycles. Where it falls under the innermost GEMM kernel and not under multiply-adds in registers, the peak of the
// latter is out of reach for any product.
//   bench_clock [threads]
#include <cstdio>
#include <functional>
#include <string>

#include "exec/cpu/gemm_tiles.h"
#include "timing.h"

using namespace mw;

namespace {

// Multiplications per second of a chain in which each waits for the one before: three cycles each on the processors known.
double chain_rate() {
  constexpr int kLinks = 6000;  // some microseconds: short beside the time in which clocks change
  const double start = bench::now();
  uint64_t x = 3;
  for (int i = 0; i < kLinks; ++i) {
    asm volatile("imul %0, %0" : "+r"(x));
  }
  return kLinks / (bench::now() - start);
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const GemmKernels& kernels = gemm_kernels(chosen_isa());
  constexpr int64_t kMostWords = 512;
  const int lanes = 3 * kernels.panel_step;
  const int64_t operand = (kTileRows + lanes) * kMostWords;
  const auto operands = bench::buffer(pool.threads() * operand * 4);
  bench::fill_random(operands.get(), pool.threads() * operand, false, 1);
  // 8 rows by one panel of `words`, again and again; 128 words stay in the first-level cache, 512 in the second-level one.
  const auto products = [&](int64_t words, int worker) {
    alignas(64) float sums[kTileRows * kPanelLanes];
    const float* a = static_cast<const float*>(operands.get()) + worker * operand;
    constexpr int64_t kWords = 2'000'000;
    for (int64_t i = 0; i < kWords / words; ++i) {
      kernels.multiply_f32({.rows = kTileRows,
                            .lanes = lanes,
                            .words = words,
                            .a = a,
                            .a_row = 4,
                            .a_step = 4 * kTileRows,
                            .half_word = false,
                            .b = a + kTileRows * words,
                            .b_step = 4 * lanes,
                            .c = sums,
                            .c_row = kPanelLanes,
                            .add = false});
    }
    return 2.0 * kTileRows * lanes * static_cast<double>(kWords / words * words);
  };
  const std::pair<const char*, std::function<double(int)>> works[] = {
      {"multiply-adds in registers", [&](int) { return kernels.fma_peak(60000); }},
      {"products of 128 words", [&](int worker) { return products(128, worker); }},
      {"products of 512 words", [&](int worker) { return products(512, worker); }}};
  std::printf("f32, %s, %d threads\n", isa_name(kernels.isa).data(), pool.threads());
  double first_clock = 0;
  for (const auto& [name, work] : works) {
    std::vector<double> rates(40), clocks(40);
    for (size_t round = 0; round < rates.size(); ++round) {
      std::vector<double> flops(pool.threads()), chain(pool.threads());
      pool.run(pool.threads(), [&](int64_t tile, int worker) {
        const double start = bench::now();
        flops[tile] = work(worker) / (bench::now() - start);
        chain[tile] = chain_rate();
      });
      rates[round] = 0;
      for (double f : flops) rates[round] += f;
      clocks[round] = *std::max_element(chain.begin(), chain.end());
    }
    const double clock = median(clocks);
    if (first_clock == 0) first_clock = clock;
    std::printf("  %-28s %7.1f GFLOP/s, clock %.2f GHz at three cycles a link, %5.1f %% of the first, %.1f FLOP a cycle\n", name,
                median(rates) / 1e9, 3 * clock / 1e9, 100 * clock / first_clock, median(rates) / (3 * clock));
  }
}
