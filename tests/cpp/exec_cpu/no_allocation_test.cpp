// A running piece allocates nothing: malloc and its kin are interposed in this test program and counted while an Executor runs.
#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "comm/threads.h"
#include "config/model_lookup.h"
#include "exec/cpu/executor.h"
#include "models/programs.h"
#include "models/registry.h"
#include "ops/ops.h"
#include "optim/optimizer.h"
#include "passes/pipeline.h"
#include "runner.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> calls{0};

void count() {
  if (counting.load(std::memory_order_relaxed)) calls.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

// The sanitizers interpose malloc themselves, and under them there is nothing to count here.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

__attribute__((visibility("default"))) void* malloc(size_t bytes) {
  count();
  return __libc_malloc(bytes);
}
__attribute__((visibility("default"))) void* calloc(size_t n, size_t bytes) {
  count();
  return __libc_calloc(n, bytes);
}
__attribute__((visibility("default"))) void* realloc(void* p, size_t bytes) {
  count();
  return __libc_realloc(p, bytes);
}
__attribute__((visibility("default"))) void* memalign(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
__attribute__((visibility("default"))) void* aligned_alloc(size_t alignment, size_t bytes) {
  count();
  return __libc_memalign(alignment, bytes);
}
__attribute__((visibility("default"))) int posix_memalign(void** p, size_t alignment, size_t bytes) {
  count();
  *p = __libc_memalign(alignment, bytes);
  return *p ? 0 : ENOMEM;
}
}
#endif

namespace mw {
namespace {

// One layer's worth of ops and their gradients' shapes: products, norm, rope, attention, gate, a reduction, a chain, a reorder, look-ups.
Program example() {
  Builder b("step");
  const Dim batch{"batch", 2}, seq{"seq", 16}, embed{"embed", 24}, vocab{"vocab", 40}, kv{"kv_heads", 2}, q{"q_per_kv", 2},
      head{"head_dim", 8}, mlp{"mlp", 32};
  const Tensor ids = b.input("input_ids", {DType::kI32, {batch, seq}});
  const Tensor table = b.parameter("table", {DType::kF32, {vocab, embed}}), norm = b.parameter("norm", {DType::kF32, {embed}});
  const Tensor wq = b.parameter("wq", {DType::kF32, {kv, q, head, embed}}), wk = b.parameter("wk", {DType::kF32, {kv, head, embed}}),
               wo = b.parameter("wo", {DType::kF32, {embed, kv, q, head}}), sinks = b.parameter("sinks", {DType::kF32, {kv, q}});
  const Tensor gate = b.parameter("gate", {DType::kF32, {mlp, embed}}), down = b.parameter("down", {DType::kF32, {embed, mlp}});
  const Tensor x = gather_rows(table, ids, "vocab");
  const Tensor n = rms_norm(x, norm, 1e-5);
  const Tensor positions = iota(b, seq);
  const Tensor queries = rope(dot(n, wq, {"embed"}), positions, {}),
               keys = rename(rope(dot(n, wk, {"embed"}), positions, {}), "seq", "kv_seq");
  const Tensor chunks = chunk_segments(ids, ids, 5);
  const Tensor context = attention(queries, keys, keys, chunks, rename(chunks, "seq", "kv_seq"), {.scale = 0.35, .softcap = 5}, sinks);
  const Tensor y = x + dot(context, wo, {"kv_heads", "q_per_kv", "head_dim"});
  const Tensor hidden = dot(y, gate, {"embed"});
  const Tensor z = y + dot(gated_activation(hidden, hidden, "silu"), down, {"mlp"});
  b.output("loss", reduce_sum(square(z) * 0.5, {"batch", "seq", "embed"}));
  b.output("transposed", reorder(z, {"embed", "batch", "seq"}));
  b.output("squares", sum_of_squares({z, table}));
  const auto [values, indices] = top_k(z, "embed", {"experts", 3});
  b.output("values", values);
  b.output("nll", cross_entropy(z, table, ids));
  const Dim experts{"experts", 4}, expert_mlp{"expert_mlp", 16};
  const Tensor router = b.parameter("router", {DType::kF32, {experts, embed}});
  const Tensor w = b.parameter("w", {DType::kF32, {experts, expert_mlp, embed}});
  const Routing routing = route(dot(z, router, {"embed"}), std::nullopt, {.k = 2});
  const Tensor rows = to_expert_rows(z, routing.indices, 4, routing.weights), row_experts = expert_of_rows(routing.indices, 4);
  const Tensor up = grouped_dot(rows, w, row_experts, {"embed"});
  b.output("experts", combine(up, routing.weights, routing.indices, 4));
  b.output("dw", grouped_dot_weights(rows, up, row_experts, w.type()));
  return b.take();
}

constexpr int kThreads = 2;

PlanOptions options_for(const cpu::KernelEnvironment& environment) {
  PlanOptions options;
  options.backend = {
      .workspace_bytes = [environment](const Program& program, const Op& op) { return cpu::workspace_bytes(program, op, environment); },
      .has_kernel = cpu::has_kernel};
  return options;
}

template <typename Body>
int64_t allocations(const Body& body) {
  calls = 0;
  counting = true;
  body();
  counting = false;
  return calls.load();
}

// Runs all rows of the Plan on zeros.
void expect_no_allocations(const Plan& plan, const cpu::KernelEnvironment& environment) {
  RankMemory memory;
  memory.reserve(plan);
  ThreadWorld world(1);
  cpu::Executor executor(plan, memory, Mesh(), world.rank(0), environment);
  ThreadPool pool(kThreads);
  EXPECT_EQ(allocations([] { std::free(std::malloc(8)); }) > 0, kCounts);
  Timeline timeline;
  size_t slices = 0;
  for (const RunRow& row : plan.order) slices += executor.steps(row.piece).size();
  for (int step = 0; step < 3; ++step) {
    if (step == 2) executor.timeline = &timeline;  // recorded
    timeline.begin(slices);
    EXPECT_EQ(allocations([&] {
                for (const RunRow& row : plan.order) executor.run(row.piece, row.microbatch, pool);
              }),
              0);
  }
}

}  // namespace

TEST(exec_cpu, a_running_piece_allocates_nothing) {
  const cpu::KernelEnvironment environment{.isa = chosen_isa(), .threads = kThreads};
  expect_no_allocations(plan_single(example(), "step", options_for(environment)), environment);
}

TEST(exec_cpu, a_running_training_step_allocates_nothing) {
  const cpu::KernelEnvironment environment{.isa = chosen_isa(), .threads = kThreads};
  ModelConfig config = find_model_config("tiny", "configs/models");
  config.num_layers = 1;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<TrainedParameter> trained;
    for (const ParameterSpec& p : model_parameters(config, dtype)) trained.push_back({p.name, p.type, p.decays()});
    PlanOptions options = options_for(environment);
    options.microbatches = 2;
    expect_no_allocations(plan_training(trace_loss(config, {.batch = 2, .seq = 16, .dtype = dtype}),
                                        trace_update({.kind = "adamw", .clip = 1.0}, trained), {}, options),
                          environment);
  }
}

}  // namespace mw
