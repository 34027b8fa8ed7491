// GEMM at the shapes of a training step of `small` and `base` (2,048 tokens), in its three forms, as a share of the FMA peak measured in
// the same run, beside OpenBLAS (f32 only).
//   bench_gemm [threads] [isa]          the shapes of a step
//   bench_gemm [threads] [isa] m n k    one product y = x W^T and its two gradients
#include "exec/cpu/gemm.h"

#include <cstdio>

#include "exec/cpu/openblas.h"
#include "timing.h"

using namespace mw;

namespace {

struct Total {
  double flops = 0, seconds = 0, blas_seconds = 0;
};

// One weight [out, in] and its three products: y = x W^T, dX = dY W, dW = dY^T X.
void run_weight(int64_t tokens, int64_t out, int64_t in, DType type, Isa isa, double peak, ThreadPool& pool, Total& total) {
  const bool bf16 = type == DType::kBF16;
  const auto x = bench::buffer(tokens * in * 4), w = bench::buffer(out * in * 4), y = bench::buffer(tokens * out * 4),
             dw = bench::buffer(out * in * 4);
  bench::fill_random(x.get(), tokens * in, bf16, 1);
  bench::fill_random(w.get(), out * in, bf16, 2);
  bench::fill_random(y.get(), tokens * out, bf16, 3);
  const auto dx = bench::buffer(tokens * std::max(in, out) * 4);
  const Gemm forms[] = {
      {.m = tokens, .n = out, .k = in, .a = {x.get(), type, in, 1}, .b = {w.get(), type, 1, in}, .c = {dx.get(), type, out, 1}},
      {.m = tokens, .n = in, .k = out, .a = {y.get(), type, out, 1}, .b = {w.get(), type, in, 1}, .c = {dx.get(), type, in, 1}},
      {.m = out, .n = in, .k = tokens, .a = {y.get(), type, 1, out}, .b = {x.get(), type, in, 1}, .c = {dw.get(), DType::kF32, in, 1}}};
  const OpenBlas* blas = bf16 ? nullptr : find_openblas();
  std::printf("  %5ld x %-5ld", out, in);
  const char* names[] = {"y", "dX", "dW"};
  for (int form = 0; form < 3; ++form) {
    const Gemm& g = forms[form];
    const GemmPlan plan = plan_gemm(g, isa);
    const auto workspace = bench::buffer(plan.workspace_bytes);
    const double flops = 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
    double seconds = 1e30, blas_seconds = 1e30;
    for (int round = 0; round < 4; ++round) {  // interleaved, so that both meet the same neighbours on the machine
      seconds = std::min(seconds, bench::best_seconds(pool, 4, [&] { run_gemm(g, plan, workspace.get(), pool); }));
      if (blas != nullptr) blas_seconds = std::min(blas_seconds, bench::best_seconds(pool, 4, [&] { openblas_gemm(*blas, g, pool); }));
    }
    total.flops += flops, total.seconds += seconds, total.blas_seconds += blas_seconds;
    std::printf("  %2s %6.1f GFLOP/s %5.1f %%", names[form], flops / seconds / 1e9, 100 * flops / seconds / peak);
    if (blas != nullptr) std::printf(" (OpenBLAS %5.1f %%)", 100 * flops / blas_seconds / peak);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const Isa isa = argc > 2 ? available_isa(argv[2]) : chosen_isa();
  for (DType type : {DType::kF32, DType::kBF16}) {
    const double peak = bench::fma_peak(gemm_kernels(isa), type == DType::kBF16 && gemm_kernels(isa).has_bf16_pairs, pool);
    std::printf("%s, %s, %d threads, peak %.0f GFLOP/s\n", dtype_name(type).data(), isa_name(isa).data(), pool.threads(), peak / 1e9);
    Total total;
    if (argc > 5) {
      run_weight(std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5]), type, isa, peak, pool, total);
    } else {
      const int64_t weights[][2] = {{288, 288}, {144, 288}, {768, 288}, {288, 768}, {768, 768}, {256, 768}, {2048, 768}, {768, 2048}};
      for (const auto& w : weights) run_weight(2048, w[0], w[1], type, isa, peak, pool, total);
    }
    std::printf("  FLOP-weighted mean: %.1f %%", 100 * total.flops / total.seconds / peak);
    if (type == DType::kF32 && find_openblas() != nullptr)
      std::printf(", OpenBLAS %.1f %% (%s)", 100 * total.flops / total.blas_seconds / peak, find_openblas()->config.c_str());
    std::printf("\n");
  }
}
