// GB/s and time of the bandwidth-bound kernels at the shapes of an 8x256 step of `base` (dim 768, mlp 2,048, 12 heads), beside a plain
// copy on the same threads. Bytes are those that must move (each operand read once, each result written once).
//
//   bench_bandwidth [threads] [isa]
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "exec/cpu/kernels/copy.h"
#include "exec/cpu/kernels/elementwise.h"
#include "exec/cpu/kernels/gated_activation.h"
#include "exec/cpu/kernels/norm.h"
#include "exec/cpu/kernels/optimizer.h"
#include "exec/cpu/kernels/reduce.h"
#include "exec/cpu/kernels/rope.h"
#include "exec/cpu/kernels/rows.h"

namespace mw {
namespace {

constexpr int64_t kTokens = 2048, kEmbed = 768, kMlp = 2048, kHeads = 12, kHeadDim = 64, kVocab = 32000;

struct Bench {
  ThreadPool pool;
  Isa isa;
  std::vector<std::unique_ptr<float[]>> arrays;

  // `count` floats or twice as many bf16, all between 0.25 and 1.25: both halves of a word are the same bf16.
  float* array(int64_t count) {
    arrays.push_back(std::make_unique<float[]>(count));
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t half = to_bf16(0.25f + static_cast<float>(i % 97) * 0.01f).bits;
      arrays.back()[i] = std::bit_cast<float>(half << 16 | half);
    }
    return arrays.back().get();
  }
  void time(const char* name, double bytes, const std::function<void()>& run) {
    using Clock = std::chrono::steady_clock;
    run();
    std::vector<double> seconds;
    for (double total = 0; seconds.size() < 200 && (seconds.size() < 5 || total < 0.2); total += seconds.back()) {
      const auto begin = Clock::now();
      run();
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    std::printf("%-44s %9.1f us  %6.1f GB/s  (best %6.1f)\n", name, median * 1e6, bytes / median * 1e-9, bytes / seconds[0] * 1e-9);
  }
};

void bench_elementwise(Bench& b) {
  const int64_t n = kTokens * kEmbed;
  float *x = b.array(n), *y = b.array(n), *z = b.array(n);
  using Op = ElementwiseOp;
  const auto chain = [&](const char* name, double bytes, DType dtype, std::vector<ElementwiseInstruction> code) {
    b.time(name, bytes, [&] {
      const int64_t sizes[] = {n};
      const ElementwiseInput inputs[] = {{x, dtype, 0, {1}}, {y, dtype, 1, {1}}};
      const ElementwiseOutput outputs[] = {{z, dtype, 2}};
      run_elementwise(b.pool, b.isa, {sizes, inputs, code, outputs});
    });
  };
  chain("add f32", n * 12.0, DType::kF32, {{Op::kAdd, 2, 0, 1}});
  chain("add bf16", n * 6.0, DType::kBF16, {{Op::kAdd, 2, 0, 1}});
  chain("chain of 6: exp(x)*y + tanh(y) - x f32", n * 12.0, DType::kF32,
        {{Op::kExp, 3, 0}, {Op::kMul, 3, 3, 1}, {Op::kTanh, 4, 1}, {Op::kAdd, 3, 3, 4}, {Op::kSub, 3, 3, 0}, {Op::kNeg, 2, 3}});
  for (const auto& [name, op] : {std::pair{"exp f32", Op::kExp},
                                 {"log f32", Op::kLog},
                                 {"tanh f32", Op::kTanh},
                                 {"sin f32", Op::kSin},
                                 {"gelu_erf f32", Op::kGeluErf}}) {
    b.time(name, n * 8.0, [&, op = op] {
      const int64_t sizes[] = {n};
      const ElementwiseInput inputs[] = {{x, DType::kF32, 0, {1}}};
      const ElementwiseInstruction code[] = {{op, 2, 0}};
      const ElementwiseOutput outputs[] = {{z, DType::kF32, 2}};
      run_elementwise(b.pool, b.isa, {sizes, inputs, code, outputs});
    });
  }
}

void bench_norms(Bench& b) {
  float *x = b.array(kTokens * kEmbed), *dy = b.array(kTokens * kEmbed), *y = b.array(kTokens * kEmbed), *w = b.array(kEmbed),
        *dw = b.array(kEmbed);
  float* workspace = b.array(norm_backward_workspace_bytes(kTokens, kEmbed) / 4);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const double bytes = static_cast<double>(kTokens * kEmbed * dtype_bytes(dtype));
    const char* const suffix = dtype == DType::kF32 ? "f32" : "bf16";
    const auto named = [&](const char* name) { return std::string(name) + " 2048x768 " + suffix; };
    const NormCall forward{.x = x, .weight = w, .y = y, .rows = kTokens, .n = kEmbed, .dtype = dtype, .weight_dtype = dtype, .eps = 1e-5f};
    const NormGradientCall back{.x = x,
                                .weight = w,
                                .dy = dy,
                                .dx = y,
                                .dweight = dw,
                                .rows = kTokens,
                                .n = kEmbed,
                                .dtype = dtype,
                                .weight_dtype = dtype,
                                .eps = 1e-5f};
    b.time(named("rms_norm").c_str(), 2 * bytes, [&] { rms_norm(b.pool, b.isa, forward); });
    b.time(named("rms_norm backward").c_str(), 3 * bytes, [&] { rms_norm_backward(b.pool, b.isa, back, workspace); });
    b.time(named("layer_norm").c_str(), 2 * bytes, [&] { layer_norm(b.pool, b.isa, forward); });
    b.time(named("layer_norm backward").c_str(), 3 * bytes, [&] { layer_norm_backward(b.pool, b.isa, back, workspace); });
  }
}

void bench_rope(Bench& b) {
  float *x = b.array(kTokens * kEmbed), *table = b.array(kTokens * kHeadDim), *inv_freq = b.array(kHeadDim / 2);
  std::vector<int32_t> positions(kTokens);
  for (int64_t i = 0; i < kTokens; ++i) positions[i] = static_cast<int32_t>(i % 256);
  b.time("rope table 2048x32", kTokens * kHeadDim * 4.0,
         [&] { rope_table(b.pool, b.isa, positions.data(), kTokens, inv_freq, kHeadDim / 2, 1.0f, table); });
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    b.time(dtype == DType::kF32 ? "rope 2048x12x64 f32" : "rope 2048x12x64 bf16", 2.0 * kTokens * kEmbed * dtype_bytes(dtype), [&] {
      rope(b.pool, b.isa,
           {.x = x, .y = x, .table = table, .rows = kTokens, .heads = kHeads, .head_dim = kHeadDim, .rotary = kHeadDim, .dtype = dtype});
    });
  }
}

void bench_gated(Bench& b) {
  const int64_t n = kTokens * kMlp;
  float *gate = b.array(n), *up = b.array(n), *dy = b.array(n), *dgate = b.array(n), *dup = b.array(n);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const double bytes = static_cast<double>(n * dtype_bytes(dtype));
    const std::string suffix = dtype == DType::kF32 ? " 2048x2048 f32" : " 2048x2048 bf16";
    b.time(("silu gated" + suffix).c_str(), 3 * bytes, [&] { gated_activation(b.pool, b.isa, Activation::kSilu, dtype, gate, up, dy, n); });
    b.time(("silu gated backward" + suffix).c_str(), 5 * bytes,
           [&] { gated_activation_backward(b.pool, b.isa, Activation::kSilu, dtype, gate, up, dy, dgate, dup, n); });
  }
}

void bench_reduce(Bench& b) {
  const int64_t rows = 8192, columns = 768;
  float *x = b.array(rows * columns), *y = b.array(rows);
  const auto sum = [&](const char* name, ReduceCall call) {
    call.op = ReduceOp::kSum, call.x = x, call.dtype = DType::kF32, call.y = y, call.y_dtype = DType::kF32;
    float* workspace = b.array(reduce_workspace_bytes(call) / 4);
    b.time(name, rows * columns * 4.0, [&] { reduce(b.pool, b.isa, call, workspace); });
  };
  ReduceCall inner{}, outer{}, all{};
  inner.kept_rank = inner.reduced_rank = outer.kept_rank = outer.reduced_rank = all.reduced_rank = 1;
  inner.kept_sizes = {rows}, inner.kept_strides = {columns}, inner.reduced_sizes = {columns}, inner.reduced_strides = {1};
  outer.kept_sizes = {columns}, outer.kept_strides = {1}, outer.reduced_sizes = {rows}, outer.reduced_strides = {columns};
  all.reduced_sizes = {rows * columns}, all.reduced_strides = {1};
  sum("sum innermost 8192x768 f32", inner);
  sum("sum outermost 8192x768 f32", outer);
  sum("sum all 8192x768 f32", all);
  const SquaredArray arrays[] = {{x, DType::kF32, rows * columns}};
  float* workspace = b.array(sum_of_squares_workspace_bytes(arrays) / 4);
  b.time("sum of squares 8192x768 f32", rows * columns * 4.0, [&] { sum_of_squares(b.pool, b.isa, arrays, workspace, y); });
}

void bench_rows(Bench& b) {
  float *table = b.array(kVocab * kEmbed), *x = b.array(kTokens * kEmbed), *workspace = b.array(scatter_rows_workspace_bytes(kTokens) / 4);
  std::vector<int32_t> ids(kTokens), best(64);
  for (int64_t i = 0; i < kTokens; ++i) ids[i] = static_cast<int32_t>(i * 7919 % kVocab);
  b.time("gather 2048 of 32000x768 f32", kTokens * kEmbed * 8.0, [&] {
    gather_rows(b.pool, {.table = table, .ids = ids.data(), .y = x, .rows = kVocab, .count = kTokens, .row_bytes = kEmbed * 4});
  });
  b.time("scatter 2048 to 32000x768 f32, zeroing", (kVocab + kTokens) * kEmbed * 4.0, [&] {
    scatter_rows(b.pool, b.isa,
                 {.x = x,
                  .ids = ids.data(),
                  .table = table,
                  .rows = kVocab,
                  .count = kTokens,
                  .width = kEmbed,
                  .x_dtype = DType::kF32,
                  .table_dtype = DType::kF32},
                 workspace);
  });
  b.time("argmax 64x32000 f32", 64.0 * kVocab * 4, [&] { argmax_rows(b.pool, b.isa, DType::kF32, table, 64, kVocab, best.data()); });
}

void bench_copy(Bench& b) {
  float *x = b.array(4096 * 2048), *y = b.array(4096 * 2048);
  const auto copy = [&](const char* name, double bytes, const CopyCall& call) {
    b.time(name, bytes, [&] { strided_copy(b.pool, b.isa, call); });
  };
  const double n = 4096.0 * 2048;
  copy("copy 8 M f32", n * 8, {x, DType::kF32, y, DType::kF32, {4096 * 2048}, {1}, {1}, 1});
  copy("cast 8 M f32 to bf16", n * 6, {x, DType::kF32, y, DType::kBF16, {4096 * 2048}, {1}, {1}, 1});
  copy("transpose 2048x768 f32", kTokens * kEmbed * 8.0, {x, DType::kF32, y, DType::kF32, {kTokens, kEmbed}, {kEmbed, 1}, {1, kTokens}, 2});
  copy("transpose 2048x768 bf16", kTokens * kEmbed * 4.0,
       {x, DType::kBF16, y, DType::kBF16, {kTokens, kEmbed}, {kEmbed, 1}, {1, kTokens}, 2});
  copy("heads forward [8,256,12,64] to [8,12,256,64]", kTokens * kEmbed * 8.0,
       {x, DType::kF32, y, DType::kF32, {8, 256, 12, 64}, {256 * 768, 768, 64, 1}, {256 * 768, 64, 256 * 64, 1}, 4});
}

void bench_optimizer(Bench& b) {
  const int64_t n = int64_t{1} << 24;
  float *w = b.array(n), *g = b.array(n), *m = b.array(n), *v = b.array(n), *copy = b.array(n / 2);
  const float lr = 1e-3f, c1 = 0.1f, c2 = 0.05f;
  AdamWCall call{.weight = w,
                 .gradient = g,
                 .first_moment = m,
                 .second_moment = v,
                 .count = n,
                 .lr = &lr,
                 .correction1 = &c1,
                 .correction2 = &c2,
                 .beta1 = 0.9f,
                 .beta2 = 0.95f,
                 .eps = 1e-8f,
                 .weight_decay = 0.1f};
  b.time("adamw 16 M f32", n * 28.0, [&] { adamw(b.pool, b.isa, call); });
  call.copy = reinterpret_cast<uint16_t*>(copy);
  b.time("adamw 16 M f32 with bf16 copy", n * 30.0, [&] { adamw(b.pool, b.isa, call); });
}

}  // namespace
}  // namespace mw

int main(int argc, char** argv) {
  mw::Bench bench{mw::ThreadPool(argc > 1 ? std::atoi(argv[1]) : 0), argc > 2 ? mw::available_isa(argv[2]) : mw::chosen_isa(), {}};
  std::printf("%d threads, %s\n", bench.pool.threads(), std::string(mw::isa_name(bench.isa)).c_str());
  for (auto* family : {mw::bench_copy, mw::bench_elementwise, mw::bench_norms, mw::bench_rope, mw::bench_gated, mw::bench_reduce,
                       mw::bench_rows, mw::bench_optimizer}) {
    family(bench);
    bench.arrays.clear();
  }
}
