// GEMM at the shapes of a training step, in its three forms, as a share of the FMA peak measured in the same run.
//   bench_gemm [threads] [isa]
#include "exec/cpu/gemm.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

using namespace mw;
using Clock = std::chrono::steady_clock;

namespace {

void* huge(size_t n) {
  n = (n + (2 << 20) - 1) & ~size_t((2 << 20) - 1);
  void* p = std::aligned_alloc(2 << 20, n);
  madvise(p, n, MADV_HUGEPAGE);
  std::fill_n((char*)p, n, 0);
  return p;
}
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double peak(const GemmKernels& kernels, bool bf16, ThreadPool& pool) {
  double best = 0;
  for (int repeat = 0; repeat < 10; ++repeat) {
    std::vector<double> flops(pool.threads());
    const auto start = Clock::now();
    pool.run(pool.threads() * 16, [&](int64_t, int worker) { flops[worker] += bf16 ? kernels.bf16_peak(40000) : kernels.fma_peak(40000); });
    double sum = 0;
    for (double f : flops) sum += f;
    best = std::max(best, sum / seconds_since(start));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  const Isa isa = argc > 2 ? parse_isa(argv[2]) : chosen_isa();
  ThreadPool pool(threads);
  for (DType type : {DType::kF32, DType::kBF16}) {
    const double top = peak(gemm_kernels(isa), type == DType::kBF16 && gemm_kernels(isa).has_bf16_pairs, pool);
    std::printf("%s peak %.0f GFLOP/s\n", dtype_name(type).data(), top / 1e9);
    const int64_t dims[][2] = {{288, 288}, {144, 288}, {768, 288}, {288, 768}, {768, 768}, {256, 768}, {2048, 768}, {768, 2048}};
    const int64_t tokens = 2048;
    double flops = 0, time = 0;
    for (const auto& d : dims) {
      const int64_t out = d[0], in = d[1];
      char* x = (char*)huge(tokens * in * 4);
      char* w = (char*)huge(out * in * 4);
      char* y = (char*)huge(tokens * out * 4);
      float* dw = (float*)huge(out * in * 4);
      std::fill_n(x, tokens * in * 4, 0);
      std::fill_n(w, out * in * 4, 0);
      std::fill_n(y, tokens * out * 4, 0);
      const Gemm forms[] = {{.m = tokens, .n = out, .k = in, .a = {x, type, in, 1}, .b = {w, type, 1, in}, .c = {y, type, out, 1}},
                            {.m = tokens, .n = in, .k = out, .a = {y, type, out, 1}, .b = {w, type, in, 1}, .c = {x, type, in, 1}},
                            {.m = out, .n = in, .k = tokens, .a = {y, type, 1, out}, .b = {x, type, in, 1}, .c = {dw, DType::kF32, in, 1}}};
      std::printf("%4ld x %4ld:", out, in);
      for (const Gemm& g : forms) {
        const GemmPlan plan = plan_gemm(g, isa);
        void* workspace = huge(plan.workspace_bytes + 64);
        double best = 1e9;
        for (int repeat = 0; repeat < 15; ++repeat) {
          const auto start = Clock::now();
          run_gemm(g, plan, workspace, pool);
          best = std::min(best, seconds_since(start));
        }
        const double f = 2.0 * g.m * g.n * g.k;
        flops += f, time += best;
        std::printf("  %6.0f (%4.1f%%, %ldx%ld)", f / best / 1e9, 100 * f / best / top, plan.tile_rows, plan.tile_panels);
        std::free(workspace);
      }
      std::printf("\n");
      std::free(x), std::free(w), std::free(y), std::free(dw);
    }
    std::printf("weighted %.1f %%\n", 100 * flops / time / top);
  }
}
