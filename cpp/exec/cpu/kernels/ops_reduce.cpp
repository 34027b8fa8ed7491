// reduce_sum, reduce_max, reduce_min; argmax and top_k along one dim.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/reduce.h"
#include "exec/cpu/kernels/reordered.h"
#include "exec/cpu/kernels/rows.h"

namespace mw::cpu {
namespace {

template <ReduceOp op>
Kernel make_reduce(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &y = s.result(0);
  std::vector<Dim> reduced;
  for (const Dim& dim : x.dims) {
    if (!y.has(dim.name)) reduced.push_back(dim);
  }
  const NamedLoops kept = joined(named_loops(y.dims, {&x})), away = joined(named_loops(reduced, {&x}));
  const ReduceCall call{.op = op,
                        .x = nullptr,
                        .dtype = x.dtype,
                        .y = nullptr,
                        .y_dtype = y.dtype,
                        .kept_sizes = padded_to<kMaxReduceDims>(kept.sizes, "a reduction"),
                        .kept_strides = padded_to<kMaxReduceDims>(kept.strides[0], "a reduction"),
                        .kept_rank = static_cast<int>(kept.rank()),
                        .reduced_sizes = padded_to<kMaxReduceDims>(away.sizes, "a reduction"),
                        .reduced_strides = padded_to<kMaxReduceDims>(away.strides[0], "a reduction"),
                        .reduced_rank = static_cast<int>(away.rank())};
  return {.workspace_bytes = reduce_workspace_bytes(call),
          .run =
              [call, isa = environment.isa](const KernelRun& r) {
                ReduceCall run = call;
                run.x = r.operands[0];
                run.y = r.results[0];
                reduce(r.pool, isa, run, r.workspace);
              },
          .choice = "reduce"};
}

// The dim that is searched is brought to the inside.
Kernel make_argmax(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("argmax", x.dtype);
  const std::string dim = s.attributes->names("dims").at(0);
  WorkspaceParts parts;
  const Reordered rows(x, innermost(x, dim), parts);
  const int64_t size = x.size_of(dim), count = s.result(0).elements();
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                argmax_rows(r.pool, isa, rows.type.dtype, rows.read(r, isa, r.operands[0]), count, size,
                            reinterpret_cast<int32_t*>(r.results[0]));
              },
          .choice = "argmax"};
}

Kernel make_top_k(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("top_k", x.dtype);
  const std::string dim = s.attributes->text("dim"), into = s.attributes->text("into");
  WorkspaceParts parts;
  const Reordered rows(x, innermost(x, dim), parts), values(s.result(0), innermost(s.result(0), into), parts),
      indices(s.result(1), innermost(s.result(1), into), parts);
  const int64_t k = s.attributes->integer("k"), size = x.size_of(dim), count = s.result(0).elements() / k;
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                top_k(r.pool, isa,
                      {.x = rows.read(r, isa, r.operands[0]),
                       .values = values.target(r, r.results[0]),
                       .indices = reinterpret_cast<int32_t*>(indices.target(r, r.results[1])),
                       .rows = count,
                       .n = size,
                       .k = k,
                       .dtype = rows.type.dtype});
                values.write(r, isa, r.results[0]);
                indices.write(r, isa, r.results[1]);
              },
          .choice = "top_k"};
}

}  // namespace

void reduce_kernels(KernelTable& table) {
  table.emplace("reduce_sum", make_reduce<ReduceOp::kSum>);
  table.emplace("reduce_max", make_reduce<ReduceOp::kMax>);
  table.emplace("reduce_min", make_reduce<ReduceOp::kMin>);
  table.emplace("argmax", make_argmax);
  table.emplace("top_k", make_top_k);
}

}  // namespace mw::cpu
