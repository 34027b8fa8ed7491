// route, its gradient, and the capacity of experts.
#include <algorithm>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/named_loops.h"
#include "exec/cpu/kernels/route_kernels.h"
#include "ops/route.h"

namespace mw::cpu {
namespace {

constexpr int64_t kTileLogits = 16384;  // in one tile of tokens

const RouteKernels& route_kernels(Isa isa) { return isa == Isa::kAvx2 ? avx2::kRouteKernels : avx512::kRouteKernels; }

RouteCall call_of(const Signature& s) {
  const RouteAttributes a = RouteAttributes::from(*s.attributes);
  return {.score = a.score == "softmax"   ? RouteScore::kSoftmax
                   : a.score == "sigmoid" ? RouteScore::kSigmoid
                                          : RouteScore::kSoftmaxOfTopK,
          .experts = s.operand(0).dims.back().size,
          .k = a.k,
          .groups = a.groups,
          .groups_selected = a.groups_selected,
          .top2_sum = a.group_score == "top2_sum",
          .normalize = a.normalize,
          .scaling = static_cast<float>(a.scaling)};
}

// Calls f(token, worker) for all tokens, some at a time.
template <typename F>
void for_tokens(ThreadPool& pool, int64_t tokens, int64_t experts, F&& f) {
  const int64_t per_tile = std::max<int64_t>(1, kTileLogits / experts);
  pool.run((tokens + per_tile - 1) / per_tile, [&](int64_t tile, int worker) {
    for (int64_t token = tile * per_tile; token < std::min(tokens, (tile + 1) * per_tile); ++token) f(token, worker);
  });
}

Kernel make_route(const Signature& s, const KernelEnvironment& environment) {
  const RouteCall call = call_of(s);
  const int64_t tokens = s.operand(0).elements() / call.experts, scratch = (call.experts + call.groups + 15) / 16 * 16;
  return {
      .workspace_bytes = environment.threads * scratch * 4,
      .run =
          [call, tokens, scratch, biased = s.operands.size() > 1, forward = route_kernels(environment.isa).forward](const KernelRun& r) {
            const auto* logits = reinterpret_cast<const float*>(r.operands[0]);
            const auto* bias = biased ? reinterpret_cast<const float*>(r.operands[1]) : nullptr;
            auto* weights = reinterpret_cast<float*>(r.results[0]);
            auto* indices = reinterpret_cast<int32_t*>(r.results[1]);
            for_tokens(r.pool, tokens, call.experts, [&](int64_t token, int worker) {
              forward(call, logits + token * call.experts, bias, weights + token * call.k, indices + token * call.k,
                      reinterpret_cast<float*>(r.workspace) + worker * scratch);
            });
          },
      .choice = "route"};
}

Kernel make_route_gradient(const Signature& s, const KernelEnvironment& environment) {
  const RouteCall call = call_of(s);
  return {
      .run =
          [call, tokens = s.operand(0).elements() / call.experts, backward = route_kernels(environment.isa).backward](const KernelRun& r) {
            const auto* logits = reinterpret_cast<const float*>(r.operands[0]);
            const auto* indices = reinterpret_cast<const int32_t*>(r.operands[1]);
            const auto* dweights = reinterpret_cast<const float*>(r.operands[2]);
            auto* dlogits = reinterpret_cast<float*>(r.results[0]);
            for (int64_t i = 0; i < tokens * call.k; ++i)
              MW_CHECK(indices[i] >= 0 && indices[i] < call.experts, "choice ", i, " is expert ", indices[i], " of ", call.experts);
            for_tokens(r.pool, tokens, call.experts, [&](int64_t token, int) {
              backward(call, logits + token * call.experts, indices + token * call.k, dweights + token * call.k,
                       dlogits + token * call.experts);
            });
          },
      .choice = "route gradient"};
}

Kernel make_capacity(const Signature& s, const KernelEnvironment&) {
  const int64_t experts = s.attributes->integer("experts");
  return {.workspace_bytes = experts * 4,
          .run =
              [experts, capacity = s.attributes->integer("capacity"), count = s.operand(0).elements()](const KernelRun& r) {
                const auto* indices = reinterpret_cast<const int32_t*>(r.operands[0]);
                auto* taken = reinterpret_cast<int32_t*>(r.workspace);
                std::fill_n(taken, experts, 0);
                for (int64_t i = 0; i < count; ++i) {
                  MW_CHECK(indices[i] >= 0 && indices[i] < experts, "choice ", i, " is expert ", indices[i], " of ", experts);
                  reinterpret_cast<float*>(r.results[0])[i] = taken[indices[i]]++ < capacity ? 1.0f : 0.0f;
                }
              },
          .choice = "capacity"};
}

}  // namespace

void route_kernels(KernelTable& table) {
  table.emplace("route", make_route);
  table.emplace("route_gradient", make_route_gradient);
  table.emplace("within_capacity", make_capacity);
}

}  // namespace mw::cpu
