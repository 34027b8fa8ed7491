// A mixture of experts against the dense product: how much a dropless layer's forward and backward cost beyond its useful FLOPs at the rate
// of dense GEMMs of the same run, op by op, and the rate of grouped products at 512 and 64 rows per expert.
//   bench_moe [threads] [isa] [small|large]
#include "layers/moe.h"

#include <cstdio>
#include <map>

#include "comm/threads.h"
#include "exec/cpu/executor.h"
#include "exec/cpu/gemm.h"
#include "exec/cpu/grouped_gemm.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "passes/pipeline.h"
#include "timing.h"

using namespace mw;

namespace {

struct Layer {
  int64_t batch, seq, embed, experts, k, expert_mlp;
  int64_t rows() const { return batch * seq * k; }
  // Forward and backward: of each product three, and of the gradients of x and of the weights all.
  double useful_flops() const { return 3.0 * (2.0 * batch * seq * embed * experts + 3 * 2.0 * rows() * embed * expert_mlp); }
};

// The rate of y = x W^T, dX = dY W and dW = dY^T X together, at as many rows as an expert layer has.
double dense_rate(const Layer& l, DType type, Isa isa, ThreadPool& pool) {
  const int64_t m = l.rows(), n = l.expert_mlp, k = l.embed;
  const auto x = bench::buffer(m * k * 4), w = bench::buffer(n * k * 4), y = bench::buffer(m * n * 4), dw = bench::buffer(n * k * 4);
  bench::fill_random(x.get(), m * k, type == DType::kBF16, 1);
  bench::fill_random(w.get(), n * k, type == DType::kBF16, 2);
  bench::fill_random(y.get(), m * n, type == DType::kBF16, 3);
  const Gemm forms[] = {
      {.m = m, .n = n, .k = k, .a = {x.get(), type, k, 1}, .b = {w.get(), type, 1, k}, .c = {y.get(), type, n, 1}},
      {.m = m, .n = k, .k = n, .a = {y.get(), type, n, 1}, .b = {w.get(), type, k, 1}, .c = {x.get(), type, k, 1}},
      {.m = n, .n = k, .k = m, .a = {y.get(), type, 1, n}, .b = {x.get(), type, k, 1}, .c = {dw.get(), DType::kF32, k, 1}}};
  double seconds = 0;
  for (const Gemm& g : forms) {
    const GemmPlan plan = plan_gemm(g, isa);
    const auto workspace = bench::buffer(plan.workspace_bytes);
    seconds += bench::best_seconds(pool, 4, [&] { run_gemm(g, plan, workspace.get(), pool); });
  }
  return 3 * 2.0 * m * n * k / seconds;
}

Program trace_layer(const Layer& l, DType type) {
  Builder b("layer");
  const Dim embed{"embed", l.embed}, experts{"experts", l.experts}, expert_mlp{"expert_mlp", l.expert_mlp};
  const Tensor x = b.parameter("x", {type, {{"batch", l.batch}, {"seq", l.seq}, embed}});
  const MoeWeights weights{.router = b.parameter("router", {type, {experts, embed}}),
                           .gate = b.parameter("gate", {type, {experts, expert_mlp, embed}}),
                           .up = b.parameter("up", {type, {experts, expert_mlp, embed}}),
                           .down = b.parameter("down", {type, {experts, embed, expert_mlp}})};
  const Tensor y = moe(x, weights, {.route = {.k = l.k, .normalize = true}});
  b.output("loss", cast(reduce_sum(y, {"batch", "seq", "embed"}), DType::kF32));
  return b.take();
}

// Returns the dense rate.
double run_layer(const Layer& l, DType type, Isa isa, ThreadPool& pool) {
  const cpu::KernelEnvironment environment{.isa = isa, .threads = pool.threads()};
  PlanOptions options;
  options.backend = {
      .workspace_bytes = [environment](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, environment); },
      .has_kernel = cpu::has_kernel};
  const Plan plan = plan_gradients(trace_layer(l, type), {}, options);
  RankMemory memory;
  memory.reserve(plan);
  uint64_t seed = 0;
  for (const Buffer& buffer : plan.kept) {
    const float scale = buffer.name == "x" ? 1.0f : 0.06f;
    bench::fill_random(memory.kept.get(buffer.name).data, buffer.type.elements(), buffer.type.dtype == DType::kBF16, ++seed, scale);
  }
  ThreadWorld world(1);
  cpu::Executor executor(plan, memory, Mesh(), world.rank(0), environment);
  double rate = 0, seconds = 1e30;
  for (int round = 0; round < 4; ++round) {  // interleaved, so that both meet the same neighbours on the machine
    rate = std::max(rate, dense_rate(l, type, isa, pool));
    seconds = std::min(seconds, bench::best_seconds(pool, 4, [&] { executor.run(0, 0, pool); }));
  }
  std::printf(" dense %ld x %ld x %ld: %.1f GFLOP/s\n", l.rows(), l.embed, l.expert_mlp, rate / 1e9);
  std::printf("  %ld x %ld tokens, dim %ld, %ld experts of %ld, top %ld: %.2f ms, %.2f times its useful FLOPs at the dense rate\n", l.batch,
              l.seq, l.embed, l.experts, l.expert_mlp, l.k, 1e3 * seconds, seconds * rate / l.useful_flops());
  // Where it goes: the time between two ops is that of the second.
  std::map<std::string, double> spent;
  double last = 0;
  executor.observer = [&](const Program&, const Op& op, const cpu::KernelRun&) {
    const double time = bench::now();
    spent[std::string(op.def->name)] += time - last;
    last = time;
  };
  for (int round = 0; round < 4; ++round) {
    last = bench::now();
    executor.run(0, 0, pool);
  }
  std::printf("   ");
  for (const auto& [name, time] : spent) {
    if (time / 4 > 1e-4) std::printf(" %s %.2f", name.c_str(), 1e3 * time / 4);
  }
  std::printf(" ms\n");
  return rate;
}

// y = x W^T and dW over groups of `per_expert` rows.
void run_grouped_products(const Layer& l, int64_t per_expert, DType type, Isa isa, ThreadPool& pool, double rate) {
  const int64_t rows = l.experts * per_expert, n = l.expert_mlp, k = l.embed;
  const auto x = bench::buffer(rows * k * 4), w = bench::buffer(l.experts * n * k * 4), y = bench::buffer(rows * n * 4),
             dw = bench::buffer(l.experts * n * k * 4);
  bench::fill_random(x.get(), rows * k, type == DType::kBF16, 1);
  bench::fill_random(w.get(), l.experts * n * k, type == DType::kBF16, 2);
  bench::fill_random(y.get(), rows * n, type == DType::kBF16, 3);
  std::vector<int32_t> groups;
  for (int64_t row = 0; row < rows; ++row) groups.push_back(static_cast<int32_t>(row / per_expert));
  const GroupedGemm forward{.rows = rows,
                            .n = n,
                            .k = k,
                            .groups = l.experts,
                            .x = {x.get(), type, k, 1},
                            .w = {w.get(), type, 1, k, n * k},
                            .y = {y.get(), type, n, 1}};
  const GroupedGemm back{.rows = rows,
                         .n = k,
                         .k = n,
                         .groups = l.experts,
                         .x = {y.get(), type, n, 1},
                         .w = {w.get(), type, k, 1, n * k},
                         .y = {x.get(), type, k, 1}};
  const GroupedOuter outer{.rows = rows,
                           .m = n,
                           .n = k,
                           .groups = l.experts,
                           .a = {y.get(), type, n, 1},
                           .b = {x.get(), type, k, 1},
                           .w = {dw.get(), DType::kF32, k, 1, n * k}};
  std::printf("  %4ld rows per expert:", per_expert);
  const double flops = 2.0 * rows * n * k;
  const auto report = [&](const char* name, const auto& product) {
    const GroupedPlan plan = plan_grouped(product, isa, pool.threads());
    const auto workspace = bench::buffer(plan.workspace_bytes);
    const double seconds = bench::best_seconds(pool, 12, [&] { run_grouped(product, plan, groups.data(), workspace.get(), pool); });
    std::printf("  %2s %6.1f GFLOP/s, %5.1f %% of dense", name, flops / seconds / 1e9, 100 * flops / seconds / rate);
  };
  report("y", forward);
  report("dX", back);
  report("dW", outer);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const Isa isa = argc > 2 ? available_isa(argv[2]) : chosen_isa();
  const Layer layers[] = {{.batch = 8, .seq = 256, .embed = 512, .experts = 8, .k = 2, .expert_mlp = 512},
                          {.batch = 8, .seq = 512, .embed = 1024, .experts = 16, .k = 4, .expert_mlp = 512}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    std::printf("%s, %s, %d threads\n", dtype_name(type).data(), isa_name(isa).data(), pool.threads());
    for (const Layer& layer : layers) {
      if (argc > 3 && (std::string(argv[3]) == "small") != (&layer == layers)) continue;
      const double rate = run_layer(layer, type, isa, pool);
      for (const int64_t rows : {512, 64}) run_grouped_products(layer, rows, type, isa, pool, rate);
    }
  }
}
