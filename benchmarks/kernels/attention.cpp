// Attention forward and backward as a share of the FMA peak of the same run, counting the exact causal half only.
//   bench_attention [threads]
#include "exec/cpu/kernels/attention.h"

#include <cmath>
#include <cstdio>

#include "timing.h"

using namespace mw;

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const Isa isa = chosen_isa();
  struct Shape {
    int64_t batch, seq, kv_heads, q_per_kv, head_dim;
  };
  for (DType type : {DType::kF32, DType::kBF16}) {
    const bool bf16 = type == DType::kBF16;
    const double peak = bench::fma_peak(gemm_kernels(isa), bf16 && gemm_kernels(isa).has_bf16_pairs, pool);
    std::printf("%s, %d threads, peak %.0f GFLOP/s\n", dtype_name(type).data(), pool.threads(), peak / 1e9);
    for (const Shape& s :
         {Shape{8, 256, 3, 2, 48}, Shape{8, 256, 4, 3, 64}, Shape{8, 256, 12, 1, 64}, Shape{1, 2048, 4, 3, 64}, Shape{1, 8192, 4, 3, 64}}) {
      const int64_t q_size = s.batch * s.seq * s.kv_heads * s.q_per_kv * s.head_dim, k_size = s.batch * s.seq * s.kv_heads * s.head_dim;
      const auto q = bench::buffer(q_size * 4), k = bench::buffer(k_size * 4), v = bench::buffer(k_size * 4),
                 out = bench::buffer(q_size * 4);
      const auto dout = bench::buffer(q_size * 4), dq = bench::buffer(q_size * 4), dk = bench::buffer(k_size * 4),
                 dv = bench::buffer(k_size * 4);
      const auto lse = bench::buffer(q_size / s.head_dim * 4);
      for (const auto& [data, size] : {std::pair{q.get(), q_size}, {k.get(), k_size}, {v.get(), k_size}, {dout.get(), q_size}})
        bench::fill_random(data, size, bf16, static_cast<uint64_t>(size));
      const Attention a{.batch = s.batch,
                        .seq = s.seq,
                        .kv_seq = s.seq,
                        .kv_heads = s.kv_heads,
                        .q_per_kv = s.q_per_kv,
                        .head_dim = s.head_dim,
                        .value_dim = s.head_dim,
                        .type = type,
                        .q = q.get(),
                        .k = k.get(),
                        .v = v.get(),
                        .scale = 1 / std::sqrt(static_cast<float>(s.head_dim)),
                        .causal = true};
      const auto forward_workspace = bench::buffer(attention_forward_workspace_bytes(a, isa, pool.threads()));
      const auto backward_workspace = bench::buffer(attention_backward_workspace_bytes(a, isa, pool.threads()));
      const int repeats = s.seq > 4096 ? 2 : 10;
      const double forward = bench::best_seconds(
          pool, repeats, [&] { attention_forward(a, out.get(), static_cast<float*>(lse.get()), isa, forward_workspace.get(), pool); });
      const AttentionBackward b{out.get(), static_cast<float*>(lse.get()), dout.get(), dq.get(), dk.get(), dv.get()};
      const double backward = bench::best_seconds(pool, repeats, [&] { attention_backward(a, b, isa, backward_workspace.get(), pool); });
      const double product = 2.0 * static_cast<double>(q_size) * static_cast<double>(s.seq + 1) / 2;
      std::printf("  %ldx%-5ld heads %2ldx%ld dim %2ld: forward %8.2f ms (%4.1f %%), backward %8.2f ms (%4.1f %%)\n", s.batch, s.seq,
                  s.kv_heads, s.q_per_kv, s.head_dim, forward * 1e3, 100 * 2 * product / forward / peak, backward * 1e3,
                  100 * 5 * product / backward / peak);
    }
  }
}
