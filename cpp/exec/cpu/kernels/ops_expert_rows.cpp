// to_expert_rows, from_expert_rows, expert_of_rows, combine and expert_row_products. Each sorts the choices again, which costs less than a
// value of its own to keep and carry.
#include <algorithm>
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/expert_rows.h"
#include "exec/cpu/kernels/named_loops.h"

namespace mw::cpu {
namespace {

struct RowsPlan {
  int64_t experts, choices, places_at, next_at, workspace_bytes;
  ExpertRowsCall call;

  // `wide`: the operand or result whose innermost dims are those of a row; `outer`: how many dims stand before them.
  RowsPlan(const Signature& s, const Type& indices, const Type& wide, int outer)
      : experts(s.attributes->integer("experts")), choices(indices.elements()) {
    WorkspaceParts parts;
    places_at = parts.take(choices * 4);
    next_at = parts.take((experts + 1) * 4);
    workspace_bytes = parts.bytes();
    const int64_t k = indices.dims.back().size;
    call = {.places = nullptr,
            .weights = nullptr,
            .tokens = k == 0 ? 0 : choices / k,
            .k = k,
            .width = elements_from(wide, outer),
            .dtype = wide.dtype};
  }

  ExpertRowsCall sorted(const KernelRun& r, const std::byte* indices) const {
    auto* places = reinterpret_cast<int32_t*>(r.workspace + places_at);
    sort_by_expert(reinterpret_cast<const int32_t*>(indices), choices, experts, places, reinterpret_cast<int32_t*>(r.workspace + next_at));
    ExpertRowsCall sorted = call;
    sorted.places = places;
    return sorted;
  }
  // Each choice as a token of its own.
  static ExpertRowsCall by_choice(ExpertRowsCall call) {
    call.tokens *= call.k;
    call.k = 1;
    return call;
  }
};

const float* weights_of(const KernelRun& r, bool has_weights) {
  return has_weights ? reinterpret_cast<const float*>(r.operands[2]) : nullptr;
}

Kernel make_to(const Signature& s, const KernelEnvironment& environment) {
  const RowsPlan plan(s, s.operand(1), s.result(0), 1);
  const bool weighted = s.operands.size() > 2, by_choice = s.operand(0).has("top_k");
  if (weighted) expect_kernel_dtype("to_expert_rows", s.operand(0).dtype);
  return {.workspace_bytes = plan.workspace_bytes,
          .run =
              [plan, weighted, by_choice, isa = environment.isa](const KernelRun& r) {
                ExpertRowsCall call = plan.sorted(r, r.operands[1]);
                call.weights = weights_of(r, weighted);
                dispatch_rows(r.pool, isa, by_choice ? RowsPlan::by_choice(call) : call, r.operands[0], r.results[0]);
              },
          .choice = "dispatch rows"};
}

// The inverse of the dispatch of rows that stand by choice: a copy the other way.
Kernel make_from(const Signature& s, const KernelEnvironment&) {
  const RowsPlan plan(s, s.operand(1), s.operand(0), 1);
  return {.workspace_bytes = plan.workspace_bytes,
          .run =
              [plan](const KernelRun& r) {
                const ExpertRowsCall call = plan.sorted(r, r.operands[1]);
                const int64_t bytes = call.width * dtype_bytes(call.dtype),
                              per_tile = std::max<int64_t>(1, (1 << 18) / std::max<int64_t>(1, bytes));
                r.pool.run((plan.choices + per_tile - 1) / per_tile, [&](int64_t tile, int) {
                  for (int64_t i = tile * per_tile; i < std::min(plan.choices, (tile + 1) * per_tile); ++i)
                    std::memcpy(r.results[0] + i * bytes, r.operands[0] + call.places[i] * bytes, static_cast<size_t>(bytes));
                });
              },
          .choice = "rows by choice"};
}

Kernel make_experts(const Signature& s, const KernelEnvironment&) {
  const RowsPlan plan(s, s.operand(0), s.result(0), 1);
  return {.workspace_bytes = plan.workspace_bytes,
          .run =
              [plan](const KernelRun& r) {
                plan.sorted(r, r.operands[0]);
                const auto* end = reinterpret_cast<const int32_t*>(r.workspace + plan.next_at);  // of each expert's rows
                auto* y = reinterpret_cast<int32_t*>(r.results[0]);
                for (int64_t e = 0, row = 0; e < plan.experts; ++e) {
                  for (; row < end[e]; ++row) y[row] = static_cast<int32_t>(e);
                }
              },
          .choice = "experts of rows"};
}

Kernel make_combine(const Signature& s, const KernelEnvironment& environment) {
  expect_kernel_dtype("combine", s.operand(0).dtype);
  const RowsPlan plan(s, s.operand(1), s.operand(0), 1);
  return {.workspace_bytes = plan.workspace_bytes,
          .run =
              [plan, weighted = s.operands.size() > 2, isa = environment.isa](const KernelRun& r) {
                ExpertRowsCall call = plan.sorted(r, r.operands[1]);
                call.weights = weights_of(r, weighted);
                combine_rows(r.pool, isa, call, r.operands[0], r.results[0]);
              },
          .choice = "combine rows"};
}

Kernel make_products(const Signature& s, const KernelEnvironment& environment) {
  expect_kernel_dtype("expert_row_products", s.operand(0).dtype);
  const RowsPlan plan(s, s.operand(1), s.operand(0), 1);
  return {.workspace_bytes = plan.workspace_bytes,
          .run =
              [plan, isa = environment.isa](const KernelRun& r) {
                expert_row_products(r.pool, isa, plan.sorted(r, r.operands[1]), r.operands[0], r.operands[2],
                                    reinterpret_cast<float*>(r.results[0]));
              },
          .choice = "products of rows"};
}

}  // namespace

void expert_rows_kernels(KernelTable& table) {
  table.emplace("to_expert_rows", make_to);
  table.emplace("from_expert_rows", make_from);
  table.emplace("expert_of_rows", make_experts);
  table.emplace("combine", make_combine);
  table.emplace("expert_row_products", make_products);
}

}  // namespace mw::cpu
