// dot: any named contraction as GEMMs over the operands where they lie.
//
// Dims fall in four groups: batch (in both operands and the result), M (a and the result), N (b and the result), K (contracted). A group
// whose dims lie evenly in memory is one loop of the GEMM. What is left of batch, M and N is looped over around it. The dims of K must
// become one: an operand in which they do not is first copied into the workspace.
#include <algorithm>
#include <cstring>

#include "exec/cpu/gemm.h"
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

struct Groups {
  std::vector<Dim> batch, m, n, k;

  Groups(const Signature& s) {
    const Type &a = s.operand(0), &b = s.operand(1), &y = s.result(0);
    const std::vector<std::string> contract = s.attributes->names("contract");
    for (const Dim& dim : y.dims) (!a.has(dim.name) ? n : b.has(dim.name) ? batch : m).push_back(dim);
    for (const Dim& dim : a.dims) {
      if (std::find(contract.begin(), contract.end(), dim.name) != contract.end()) k.push_back(dim);
    }
  }
};

// The dims of one operand as batch, own, K, for a dense copy.
std::vector<Dim> dense_dims(const Groups& groups, const std::vector<Dim>& own) {
  std::vector<Dim> dims = groups.batch;
  dims.insert(dims.end(), own.begin(), own.end());
  dims.insert(dims.end(), groups.k.begin(), groups.k.end());
  return dims;
}

// Whether K is one loop in this operand, in the order in which its dims stand in `k`.
bool is_even(const Type& type, const std::vector<Dim>& k) { return joined(named_loops(k, {&type})).rank() <= 1; }

std::vector<Dim> in_order_of(const Type& type, const std::vector<Dim>& dims) {
  std::vector<Dim> ordered;
  for (const Dim& dim : type.dims) {
    if (std::find(dims.begin(), dims.end(), dim) != dims.end()) ordered.push_back(dim);
  }
  return ordered;
}

// One loop of a group, and its stride in a, b and y.
struct Split {
  int64_t size = 1;
  std::vector<int64_t> strides;
};

Split take_loop(NamedLoops& loops, size_t which) {
  Split split{.size = 1, .strides = std::vector<int64_t>(loops.strides.size(), 0)};
  if (loops.rank() == 0) return split;
  split.size = loops.sizes[which];
  loops.sizes.erase(loops.sizes.begin() + static_cast<int64_t>(which));
  for (size_t a = 0; a < loops.strides.size(); ++a) {
    split.strides[a] = loops.strides[a][which];
    loops.strides[a].erase(loops.strides[a].begin() + static_cast<int64_t>(which));
  }
  return split;
}

size_t largest_loop(const NamedLoops& loops) {
  return loops.rank() == 0 ? 0 : static_cast<size_t>(std::max_element(loops.sizes.begin(), loops.sizes.end()) - loops.sizes.begin());
}

struct DotPlan {
  Reordered a, b;
  Gemm gemm{};
  GemmPlan plan{};
  NamedLoops around{};  // strides of a, b, y
  int64_t gemm_workspace = 0;
  int64_t result_bytes = 0;
  bool accumulate = false;
  Isa isa{};
};

// The innermost loop of y goes into the GEMM, since one stride of C has to be 1; of the others the largest.
size_t loop_for_gemm(const NamedLoops& loops) {
  for (size_t i = 0; i < loops.rank(); ++i) {
    if (loops.strides[2][i] == 1) return i;
  }
  return largest_loop(loops);
}

void append_loops(NamedLoops& to, const NamedLoops& from) {
  to.strides.resize(3);
  to.sizes.insert(to.sizes.end(), from.sizes.begin(), from.sizes.end());
  for (size_t a = 0; a < 3; ++a) to.strides[a].insert(to.strides[a].end(), from.strides[a].begin(), from.strides[a].end());
}

void run_dot(const DotPlan& dot, const KernelRun& r) {
  if (dot.accumulate && r.results[0] != r.operands[2]) copy_bytes(r.pool, dot.isa, r.operands[2], r.results[0], dot.result_bytes);
  const std::byte* a = dot.a.read(r, dot.isa, r.operands[0]);
  const std::byte* b = dot.b.read(r, dot.isa, r.operands[1]);
  Gemm gemm = dot.gemm;
  const int64_t in_bytes = dtype_bytes(gemm.a.type), out_bytes = dtype_bytes(gemm.c.type), count = dot.around.elements();
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, at[3] = {0, 0, 0};
    for (size_t d = dot.around.rank(); d-- > 0;) {
      const int64_t index = rest % dot.around.sizes[d];
      rest /= dot.around.sizes[d];
      for (size_t array = 0; array < 3; ++array) at[array] += index * dot.around.strides[array][d];
    }
    gemm.a.data = a + at[0] * in_bytes;
    gemm.b.data = b + at[1] * in_bytes;
    gemm.c.data = r.results[0] + at[2] * out_bytes;
    run_gemm(gemm, dot.plan, r.workspace + dot.gemm_workspace, r.pool);
  }
}

Kernel make_dot(const Signature& s, const KernelEnvironment& environment) {
  const Type& y = s.result(0);
  expect_kernel_dtype("dot", s.operand(0).dtype);
  expect_kernel_dtype("dot", y.dtype);
  Groups groups(s);
  const std::vector<Dim> order_of_b = in_order_of(s.operand(1), groups.k);
  if (!is_even(s.operand(0), groups.k) && is_even(s.operand(1), order_of_b)) groups.k = order_of_b;
  WorkspaceParts parts;
  const auto prepared = [&](const Type& operand, const std::vector<Dim>& own) {
    return Reordered(operand, is_even(operand, groups.k) ? operand.dims : dense_dims(groups, own), parts);
  };
  DotPlan dot{.a = prepared(s.operand(0), groups.m), .b = prepared(s.operand(1), groups.n)};
  dot.isa = environment.isa;
  dot.accumulate = s.attributes->flag_or("accumulate", false);
  dot.result_bytes = y.bytes();

  const std::vector<const Type*> arrays{&dot.a.type, &dot.b.type, &y};
  NamedLoops batch = joined(named_loops(groups.batch, arrays)), m = joined(named_loops(groups.m, arrays)),
             n = joined(named_loops(groups.n, arrays)), k = joined(named_loops(groups.k, arrays));
  const Split one_m = take_loop(m, loop_for_gemm(m)), one_n = take_loop(n, loop_for_gemm(n)), one_k = take_loop(k, 0),
              one_batch = take_loop(batch, largest_loop(batch));
  for (const NamedLoops* rest : {&batch, &m, &n}) append_loops(dot.around, *rest);
  dot.gemm = {.m = one_m.size,
              .n = one_n.size,
              .k = one_k.size,
              .batch = one_batch.size,
              .a = {nullptr, dot.a.type.dtype, one_m.strides[0], one_k.strides[0], one_batch.strides[0]},
              .b = {nullptr, dot.b.type.dtype, one_k.strides[1], one_n.strides[1], one_batch.strides[1]},
              .c = {nullptr, y.dtype, one_m.strides[2], one_n.strides[2], one_batch.strides[2]},
              .accumulate = dot.accumulate};
  // A dim of one index has any stride: the one that suits the GEMM.
  if (one_n.size == 1) dot.gemm.c.col = 1;
  if (one_m.size == 1) dot.gemm.c.row = std::max<int64_t>(one_n.size, 1);
  if (one_m.size == 1) dot.gemm.a.row = one_k.size;
  if (one_n.size == 1) dot.gemm.b.col = one_k.size;
  if (one_k.size == 1) dot.gemm.a.col = dot.gemm.b.row = 1;
  dot.plan = plan_gemm(dot.gemm, environment.isa);
  dot.gemm_workspace = parts.take(dot.plan.workspace_bytes);
  const int64_t bytes = parts.bytes();
  const std::string choice = "gemm " + std::string(dtype_name(s.operand(0).dtype)) + " " + std::string(isa_name(environment.isa)) +
                             (dot.around.elements() > 1 ? " x " + std::to_string(dot.around.elements()) : "") +
                             (dot.a.moves || dot.b.moves ? " with a copy" : "");
  return {.workspace_bytes = bytes, .run = [dot = std::move(dot)](const KernelRun& r) { run_dot(dot, r); }, .choice = choice};
}

}  // namespace

void dot_kernels(KernelTable& table) { table.emplace("dot", make_dot); }

}  // namespace mw::cpu
