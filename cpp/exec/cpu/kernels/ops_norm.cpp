// rms_norm, layer_norm and their gradients. A normalised dim that is not innermost is brought there, and the results back.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/norm.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

enum class Norm { kRms, kLayer };

template <Norm norm>
Kernel make_norm(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &weight = s.operand(1);
  expect_kernel_dtype("a norm", x.dtype);
  WorkspaceParts parts;
  const std::vector<Dim> wanted = innermost(x, weight.dims.at(0).name);
  const Reordered in(x, wanted, parts), out(s.result(0), wanted, parts);
  const int64_t n = weight.elements();
  const NormCall call{.x = nullptr,
                      .weight = nullptr,
                      .y = nullptr,
                      .rows = n == 0 ? 0 : x.elements() / n,
                      .n = n,
                      .dtype = x.dtype,
                      .weight_dtype = weight.dtype,
                      .eps = static_cast<float>(s.attributes->number("eps")),
                      .offset_one = s.attributes->flag_or("offset_one", false)};
  const bool biased = s.operands.size() > 2;
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                NormCall run = call;
                run.x = in.read(r, isa, r.operands[0]);
                run.weight = r.operands[1];
                run.bias = biased ? r.operands[2] : nullptr;
                run.y = out.target(r, r.results[0]);
                (norm == Norm::kRms ? rms_norm : layer_norm)(r.pool, isa, run);
                out.write(r, isa, r.results[0]);
              },
          .choice = in.moves ? "norm of copied rows" : "norm"};
}

template <Norm norm>
Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &weight = s.operand(1);
  expect_kernel_dtype("a norm", x.dtype);
  WorkspaceParts parts;
  const std::vector<Dim> wanted = innermost(x, weight.dims.at(0).name);
  const Reordered in(x, wanted, parts), upstream(s.operand(2), wanted, parts), out(s.result(0), wanted, parts);
  const int64_t n = weight.elements(), rows = n == 0 ? 0 : x.elements() / n, sums_at = parts.take(norm_backward_workspace_bytes(rows, n));
  const NormGradientCall call{.x = nullptr,
                              .weight = nullptr,
                              .dy = nullptr,
                              .dx = nullptr,
                              .dweight = nullptr,
                              .rows = rows,
                              .n = n,
                              .dtype = x.dtype,
                              .weight_dtype = weight.dtype,
                              .dweight_dtype = s.result(1).dtype,
                              .eps = static_cast<float>(s.attributes->number("eps")),
                              .offset_one = s.attributes->flag_or("offset_one", false)};
  const bool biased = s.results.size() > 2;
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                NormGradientCall run = call;
                run.x = in.read(r, isa, r.operands[0]);
                run.weight = r.operands[1];
                run.dy = upstream.read(r, isa, r.operands[2]);
                run.dx = out.target(r, r.results[0]);
                run.dweight = r.results[1];
                run.dbias = biased ? r.results[2] : nullptr;
                (norm == Norm::kRms ? rms_norm_backward : layer_norm_backward)(r.pool, isa, run, r.workspace + sums_at);
                out.write(r, isa, r.results[0]);
              },
          .choice = in.moves ? "norm gradient of copied rows" : "norm gradient"};
}

}  // namespace

void norm_kernels(KernelTable& table) {
  table.emplace("rms_norm", make_norm<Norm::kRms>);
  table.emplace("layer_norm", make_norm<Norm::kLayer>);
  table.emplace("rms_norm_gradient", make_gradient<Norm::kRms>);
  table.emplace("layer_norm_gradient", make_gradient<Norm::kLayer>);
}

}  // namespace mw::cpu
