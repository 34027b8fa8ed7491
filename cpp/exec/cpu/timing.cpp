#include "exec/cpu/timing.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "exec/cpu/arena.h"

namespace mw::cpu {
namespace {

constexpr double kEnoughSeconds = 0.3;
constexpr int kFewestRuns = 5, kMostRuns = 1000;

double median_seconds(int& runs, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();  // touches the memory
  std::vector<double> seconds;
  const auto begin = Clock::now();
  while (static_cast<int>(seconds.size()) < kFewestRuns ||
         (static_cast<int>(seconds.size()) < kMostRuns && std::chrono::duration<double>(Clock::now() - begin).count() < kEnoughSeconds)) {
    const auto start = Clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  runs = static_cast<int>(seconds.size());
  std::nth_element(seconds.begin(), seconds.begin() + runs / 2, seconds.end());
  return seconds[static_cast<size_t>(runs / 2)];
}

// Floats in [-0.5, 0.5), as activations and weights are; of vectors and scalars in [0.5, 1.5), which moments and corrections need.
// Each operand has its own seed: were rows of two the same, their products would be large.
void fill(const Type& type, std::byte* data, int64_t int_below, uint32_t seed) {
  uint32_t state = (seed + 1) * 0x9e3779b9u;
  const double least = type.dims.size() < 2 ? 0.5 : -0.5;
  for (int64_t i = 0; i < type.elements(); ++i) {
    state = state * 1664525 + 1013904223;
    const double value = is_float(type.dtype) ? least + (state >> 8) * (1.0 / (1 << 24)) : static_cast<double>((state >> 8) % int_below);
    store_element(type.dtype, data, i, value);
  }
}

}  // namespace

OpTiming time_op(const Program& program, std::string_view name, const KernelEnvironment& environment, ThreadPool& pool, int64_t int_below) {
  const auto op = std::find_if(program.ops.begin(), program.ops.end(), [&](const Op& o) { return o.def->name == name; });
  if (op == program.ops.end()) throw UserError("the program has no op '" + std::string(name) + "'");
  const KernelMaker maker = find_kernel(name);
  if (!maker) throw UserError("the CPU backend has no kernel for '" + std::string(name) + "'");
  const Signature signature = program.signature(*op);
  const Kernel kernel = maker(signature, environment);

  const auto padded = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  int64_t total = padded(kernel.workspace_bytes);
  for (const std::vector<const Type*>& types : {signature.operands, signature.results}) {
    for (const Type* type : types) total += padded(type->bytes());
  }
  const Arena arena(total);
  std::byte* next = arena.data() + padded(kernel.workspace_bytes);
  std::vector<const std::byte*> operands;
  std::vector<std::byte*> results;
  for (const Type* type : signature.operands) {
    fill(*type, next, int_below, static_cast<uint32_t>(operands.size()));
    operands.push_back(next);
    next += padded(type->bytes());
  }
  for (const Type* type : signature.results) {
    results.push_back(next);
    next += padded(type->bytes());
  }
  const KernelRun run{.operands = operands.data(), .results = results.data(), .workspace = arena.data(), .pool = pool};
  OpTiming timing{.cost = cost_of(*op->def, signature), .kernel = kernel.choice, .workspace_bytes = kernel.workspace_bytes};
  timing.seconds = median_seconds(timing.runs, [&] { kernel.run(run); });
  return timing;
}

double time_openblas(const OpenBlas& blas, int64_t m, int64_t n, int64_t k, ThreadPool& pool) {
  std::vector<float> x(static_cast<size_t>(m * k), 0.5f), w(static_cast<size_t>(n * k), 0.5f), y(static_cast<size_t>(m * n));
  const Gemm gemm{
      .m = m, .n = n, .k = k, .a = {x.data(), DType::kF32, k, 1}, .b = {w.data(), DType::kF32, 1, k}, .c = {y.data(), DType::kF32, n, 1}};
  int runs = 0;
  return median_seconds(runs, [&] { openblas_gemm(blas, gemm, pool); });
}

}  // namespace mw::cpu
