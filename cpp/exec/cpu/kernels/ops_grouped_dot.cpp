// grouped_dot and the gradient of its weights: the weight of an expert is a matrix where it lies, whatever the order of its dims, as long
// as contracted and other dims each walk evenly through memory; else it is copied into the workspace first.
#include <algorithm>

#include "exec/cpu/grouped_gemm.h"
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

std::vector<Dim> behind_first(const Type& type) { return {type.dims.begin() + 1, type.dims.end()}; }
int64_t count_of(const std::vector<Dim>& dims) { return Type{DType::kF32, dims}.elements(); }

std::vector<Dim> joined_dims(const Dim& first, const std::vector<Dim>& second, const std::vector<Dim>& third) {
  std::vector<Dim> dims{first};
  dims.insert(dims.end(), second.begin(), second.end());
  dims.insert(dims.end(), third.begin(), third.end());
  return dims;
}

// Whether `dims`, in this order, are one loop through an expert's weight.
bool is_even(const Type& weight, const std::vector<Dim>& dims) { return joined(named_loops(dims, {&weight})).rank() <= 1; }

// The stride of that loop; `otherwise` when it has one step only.
int64_t stride_of(const Type& weight, const std::vector<Dim>& dims, int64_t otherwise) {
  const NamedLoops loops = joined(named_loops(dims, {&weight}));
  return loops.rank() == 0 ? otherwise : loops.strides[0][0];
}

// An expert's weight as a matrix: `down` along its rows, `across` along its columns.
struct WeightMatrix {
  Reordered memory;
  int64_t row, col, batch;

  WeightMatrix(const Type& weight, const std::vector<Dim>& down, const std::vector<Dim>& across, WorkspaceParts& parts)
      : memory(weight, is_even(weight, down) && is_even(weight, across) ? weight.dims : joined_dims(weight.dims[0], down, across), parts),
        row(stride_of(memory.type, down, count_of(across))),
        col(stride_of(memory.type, across, 1)),
        batch(count_of(down) * count_of(across)) {
    if (count_of(down) == 1 && col != 1) row = 1;  // a dim of one index has the stride that suits
  }
};

std::string choice(const char* what, const Type& x, Isa isa, const WeightMatrix& weight) {
  return std::string(what) + " " + std::string(dtype_name(x.dtype)) + " " + std::string(isa_name(isa)) +
         (weight.memory.moves ? " with a copy" : "");
}

Kernel make_grouped_dot(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &w = s.operand(1), &y = s.result(0);
  expect_kernel_dtype("grouped_dot", x.dtype);
  WorkspaceParts parts;
  const WeightMatrix weight(w, behind_first(x), behind_first(y), parts);
  const int64_t k = count_of(behind_first(x)), n = count_of(behind_first(y));
  const bool accumulate = s.attributes->flag_or("accumulate", false);
  const GroupedGemm gemm{.rows = x.dims[0].size,
                         .n = n,
                         .k = k,
                         .groups = w.dims[0].size,
                         .x = {nullptr, x.dtype, k, 1},
                         .w = {nullptr, w.dtype, weight.row, weight.col, weight.batch},
                         .y = {nullptr, y.dtype, n, 1},
                         .accumulate = accumulate};
  const GroupedPlan plan = plan_grouped(gemm, environment.isa, environment.threads);
  const int64_t workspace = parts.take(plan.workspace_bytes);
  return {.workspace_bytes = parts.bytes(),
          .run =
              [gemm, plan, weight, workspace, bytes = y.bytes(), isa = environment.isa](const KernelRun& r) {
                GroupedGemm g = gemm;
                if (g.accumulate && r.operands[3] != r.results[0]) copy_bytes(r.pool, isa, r.operands[3], r.results[0], bytes);
                g.x.data = r.operands[0];
                g.w.data = weight.memory.read(r, isa, r.operands[1]);
                g.y.data = r.results[0];
                run_grouped(g, plan, reinterpret_cast<const int32_t*>(r.operands[2]), r.workspace + workspace, r.pool);
              },
          .choice = choice("grouped gemm", x, environment.isa, weight)};
}

Kernel make_weights(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &dy = s.operand(1), &w = s.result(0);
  expect_kernel_dtype("grouped_dot_weights", x.dtype);
  expect_kernel_dtype("grouped_dot_weights", w.dtype);
  WorkspaceParts parts;
  const WeightMatrix weight(w, behind_first(dy), behind_first(x), parts);
  const int64_t m = count_of(behind_first(dy)), n = count_of(behind_first(x));
  const bool accumulate = s.attributes->flag_or("accumulate", false);
  const bool mixed = weight.row != 1 && weight.col != 1 && m != 1 && n != 1;  // neither matrix dim is contiguous
  MW_CHECK(!mixed, "the weights ", to_string(w), " have no contiguous dim");
  const GroupedOuter gemm{.rows = x.dims[0].size,
                          .m = m,
                          .n = n,
                          .groups = w.dims[0].size,
                          .a = {nullptr, dy.dtype, m, 1},
                          .b = {nullptr, x.dtype, n, 1},
                          .w = {nullptr, w.dtype, weight.row, weight.col, weight.batch},
                          .accumulate = accumulate};
  const GroupedPlan plan = plan_grouped(gemm, environment.isa, environment.threads);
  const int64_t workspace = parts.take(plan.workspace_bytes);
  return {.workspace_bytes = parts.bytes(),
          .run =
              [gemm, plan, weight, workspace, bytes = w.bytes(), isa = environment.isa](const KernelRun& r) {
                GroupedOuter g = gemm;
                g.a.data = r.operands[1];
                g.b.data = r.operands[0];
                if (g.accumulate && weight.memory.moves) {
                  weight.memory.read(r, isa, r.operands[3]);
                } else if (g.accumulate && r.operands[3] != r.results[0]) {
                  copy_bytes(r.pool, isa, r.operands[3], r.results[0], bytes);
                }
                g.w.data = weight.memory.target(r, r.results[0]);
                run_grouped(g, plan, reinterpret_cast<const int32_t*>(r.operands[2]), r.workspace + workspace, r.pool);
                weight.memory.write(r, isa, r.results[0]);
              },
          .choice = choice("grouped gemm of weights", x, environment.isa, weight)};
}

}  // namespace

void grouped_dot_kernels(KernelTable& table) {
  table.emplace("grouped_dot", make_grouped_dot);
  table.emplace("grouped_dot_weights", make_weights);
}

}  // namespace mw::cpu
