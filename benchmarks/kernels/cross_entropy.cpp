// Cross-entropy with gradients over a vocabulary of 32,000, 2,048 tokens: three products, as a share of the FMA peak of the same run.
//   bench_cross_entropy [threads]
#include "exec/cpu/kernels/cross_entropy.h"

#include <cstdio>

#include "timing.h"

using namespace mw;

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const Isa isa = chosen_isa();
  constexpr int64_t kTokens = 2048, kVocab = 32000;
  for (DType type : {DType::kF32, DType::kBF16}) {
    const bool bf16 = type == DType::kBF16;
    const double peak = bench::fma_peak(gemm_kernels(isa), bf16 && gemm_kernels(isa).has_bf16_pairs, pool);
    std::printf("%s, %d threads, peak %.0f GFLOP/s\n", dtype_name(type).data(), pool.threads(), peak / 1e9);
    for (int64_t embed : {288, 768}) {
      const auto x = bench::buffer(kTokens * embed * 4), w = bench::buffer(kVocab * embed * 4), dx = bench::buffer(kTokens * embed * 4);
      const auto dw = bench::buffer(kVocab * embed * 4);
      bench::fill_random(x.get(), kTokens * embed, bf16, 1);
      bench::fill_random(w.get(), kVocab * embed, bf16, 2, 0.1f);
      std::vector<int32_t> targets(kTokens);
      for (int64_t i = 0; i < kTokens; ++i) targets[i] = static_cast<int32_t>(i * 37 % kVocab);
      std::vector<float> scale(kTokens, 1.0f / kTokens), nll(kTokens), lse(kTokens);
      for (int64_t chunk : {256, 512, 1024, 2048}) {
        const CrossEntropy c{.tokens = kTokens,
                             .vocab = kVocab,
                             .embed = embed,
                             .x = {x.get(), type, embed},
                             .w = {w.get(), type, embed},
                             .targets = targets.data(),
                             .chunk = chunk};
        const int64_t bytes = cross_entropy_workspace_bytes(c, CrossEntropyPass::kWithGradients, isa);
        const auto workspace = bench::buffer(bytes);
        const double product = 2.0 * kTokens * kVocab * embed;
        const double forward = bench::best_seconds(
            pool, 4, [&] { cross_entropy_forward(c, {.lse = lse.data(), .target_logit = nll.data()}, isa, workspace.get(), pool); });
        const CrossEntropyGradients g{
            .scale = scale.data(), .nll = nll.data(), .dx = {dx.get(), type, embed}, .dw = static_cast<float*>(dw.get()), .dw_row = embed};
        const double all = bench::best_seconds(pool, 4, [&] { cross_entropy_with_gradients(c, g, isa, workspace.get(), pool); });
        std::printf("  embed %4ld chunk %4ld: forward %6.1f ms (%4.1f %%), with gradients %6.1f ms (%4.1f %%), workspace %ld MiB\n", embed,
                    chunk, forward * 1e3, 100 * product / forward / peak, all * 1e3, 100 * 3 * product / all / peak, bytes >> 20);
      }
    }
  }
}
