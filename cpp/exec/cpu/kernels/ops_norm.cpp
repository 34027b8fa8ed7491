// rms_norm, layer_norm and their gradients. A normalised dim that is not innermost is brought there, and the results back.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/norm.h"
#include "exec/cpu/kernels/reordered.h"

namespace mw::cpu {
namespace {

enum class Norm { kRms, kLayer };

// Whether there is a weight behind x, and the dim that is normalised.
struct Normed {
  bool weighted;
  std::string dim;
  explicit Normed(const Signature& s)
      : weighted(!s.attributes->find("dim")), dim(weighted ? s.operand(1).dims.at(0).name : s.attributes->text("dim")) {}
};

template <Norm norm>
Kernel make_norm(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("a norm", x.dtype);
  WorkspaceParts parts;
  const Normed normed(s);
  const std::vector<Dim> wanted = innermost(x, normed.dim);
  const Reordered in(x, wanted, parts), out(s.result(0), wanted, parts);
  const int64_t n = x.size_of(normed.dim);
  const NormCall call{.x = nullptr,
                      .weight = nullptr,
                      .y = nullptr,
                      .rows = n == 0 ? 0 : x.elements() / n,
                      .n = n,
                      .dtype = x.dtype,
                      .weight_dtype = normed.weighted ? s.operand(1).dtype : x.dtype,
                      .eps = static_cast<float>(s.attributes->number("eps")),
                      .offset_one = s.attributes->flag_or("offset_one", false)};
  const bool weighted = normed.weighted, biased = s.operands.size() > 2;
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                NormCall run = call;
                run.x = in.read(r, isa, r.operands[0]);
                run.weight = weighted ? r.operands[1] : nullptr;
                run.bias = biased ? r.operands[2] : nullptr;
                run.y = out.target(r, r.results[0]);
                (norm == Norm::kRms ? rms_norm : layer_norm)(r.pool, isa, run);
                out.write(r, isa, r.results[0]);
              },
          .choice = in.moves ? "norm of copied rows" : "norm"};
}

template <Norm norm>
Kernel make_gradient(const Signature& s, const KernelEnvironment& environment) {
  const Type& x = s.operand(0);
  expect_kernel_dtype("a norm", x.dtype);
  WorkspaceParts parts;
  const Normed normed(s);
  const std::vector<Dim> wanted = innermost(x, normed.dim);
  const Reordered in(x, wanted, parts), upstream(*s.operands.back(), wanted, parts), out(s.result(0), wanted, parts);
  const int64_t n = x.size_of(normed.dim), rows = n == 0 ? 0 : x.elements() / n,
                sums_at = parts.take(normed.weighted ? norm_backward_workspace_bytes(rows, n) : 0);
  const NormGradientCall call{.x = nullptr,
                              .weight = nullptr,
                              .dy = nullptr,
                              .dx = nullptr,
                              .dweight = nullptr,
                              .rows = rows,
                              .n = n,
                              .dtype = x.dtype,
                              .weight_dtype = normed.weighted ? s.operand(1).dtype : x.dtype,
                              .dweight_dtype = normed.weighted ? s.result(1).dtype : DType::kF32,
                              .eps = static_cast<float>(s.attributes->number("eps")),
                              .offset_one = s.attributes->flag_or("offset_one", false)};
  const bool weighted = normed.weighted, biased = s.results.size() > 2;
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, isa = environment.isa](const KernelRun& r) {
                NormGradientCall run = call;
                run.x = in.read(r, isa, r.operands[0]);
                run.weight = weighted ? r.operands[1] : nullptr;
                run.dy = upstream.read(r, isa, r.operands[weighted ? 2 : 1]);
                run.dx = out.target(r, r.results[0]);
                run.dweight = weighted ? r.results[1] : nullptr;
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
