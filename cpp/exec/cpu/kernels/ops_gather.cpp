// gather_rows and scatter_rows. The raw kernels take [rows, width] tables; dims in both ids and table are batch dims, each index of which
// has a table of its own. Arrays in another memory order pass through the workspace.
#include <algorithm>
#include <cstring>

#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/reordered.h"
#include "exec/cpu/kernels/rows.h"

namespace mw::cpu {
namespace {

struct RowDims {
  std::vector<Dim> batch, ids, others;  // in both; of ids alone; of the table alone, without the one that is indexed

  RowDims(const Type& table, const Type& id_type, const std::string& dim) {
    for (const Dim& d : id_type.dims) (table.has(d.name) ? batch : ids).push_back(d);
    for (const Dim& d : table.dims) {
      if (d.name != dim && !id_type.has(d.name)) others.push_back(d);
    }
  }
  static std::vector<Dim> chain(std::initializer_list<std::vector<Dim>> parts) {
    std::vector<Dim> all;
    for (const std::vector<Dim>& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
};

int64_t count_of(const std::vector<Dim>& dims) { return Type{DType::kI32, dims}.elements(); }

// The offset of a shard of the table: the third operand where there is one.
int64_t first_id(const KernelRun& r, bool has_offset) {
  int32_t first = 0;
  if (has_offset) std::memcpy(&first, r.operands[2], sizeof first);
  return first;
}

struct RowsPlan {
  Reordered table, ids, rows;
  int64_t batch, size, count, width;
  bool has_offset;

  RowsPlan(const Signature& s, const Type& table_type, const Type& rows_type, WorkspaceParts& parts)
      : RowsPlan(s, table_type, rows_type, parts, RowDims(table_type, s.operand(1), s.attributes->text("dim"))) {}

  const std::byte* table_at(const std::byte* base, int64_t b) const { return base + b * size * width * dtype_bytes(table.type.dtype); }
  const std::byte* rows_at(const std::byte* base, int64_t b) const { return base + b * count * width * dtype_bytes(rows.type.dtype); }

 private:
  RowsPlan(const Signature& s, const Type& table_type, const Type& rows_type, WorkspaceParts& parts, const RowDims& dims)
      : table(table_type,
              RowDims::chain({dims.batch, {{s.attributes->text("dim"), table_type.size_of(s.attributes->text("dim"))}}, dims.others}),
              parts),
        ids(s.operand(1), RowDims::chain({dims.batch, dims.ids}), parts),
        rows(rows_type, RowDims::chain({dims.batch, dims.ids, dims.others}), parts),
        batch(count_of(dims.batch)),
        size(table_type.size_of(s.attributes->text("dim"))),
        count(count_of(dims.ids)),
        width(count_of(dims.others)),
        has_offset(s.operands.size() > 2) {}
};

Kernel make_gather(const Signature& s, const KernelEnvironment& environment) {
  WorkspaceParts parts;
  const RowsPlan plan(s, s.operand(0), s.result(0), parts);
  return {.workspace_bytes = parts.bytes(),
          .run =
              [plan, isa = environment.isa](const KernelRun& r) {
                const std::byte* table = plan.table.read(r, isa, r.operands[0]);
                const auto* ids = reinterpret_cast<const int32_t*>(plan.ids.read(r, isa, r.operands[1]));
                std::byte* y = plan.rows.target(r, r.results[0]);
                for (int64_t b = 0; b < plan.batch; ++b) {
                  gather_rows(r.pool, {.table = plan.table_at(table, b),
                                       .ids = ids + b * plan.count,
                                       .y = const_cast<std::byte*>(plan.rows_at(y, b)),
                                       .rows = plan.size,
                                       .count = plan.count,
                                       .row_bytes = plan.width * dtype_bytes(plan.table.type.dtype),
                                       .first_id = first_id(r, plan.has_offset)});
                }
                plan.rows.write(r, isa, r.results[0]);
              },
          .choice = "gather rows"};
}

Kernel make_scatter(const Signature& s, const KernelEnvironment& environment) {
  expect_kernel_dtype("scatter_rows", s.operand(0).dtype);
  expect_kernel_dtype("scatter_rows", s.result(0).dtype);
  WorkspaceParts parts;
  const RowsPlan plan(s, s.result(0), s.operand(0), parts);
  const int64_t sorted_at = parts.take(scatter_rows_workspace_bytes(plan.count));
  return {.workspace_bytes = parts.bytes(),
          .run =
              [plan, sorted_at, isa = environment.isa](const KernelRun& r) {
                const std::byte* x = plan.rows.read(r, isa, r.operands[0]);
                const auto* ids = reinterpret_cast<const int32_t*>(plan.ids.read(r, isa, r.operands[1]));
                std::byte* table = plan.table.target(r, r.results[0]);
                for (int64_t b = 0; b < plan.batch; ++b) {
                  scatter_rows(r.pool, isa,
                               {.x = plan.rows_at(x, b),
                                .ids = ids + b * plan.count,
                                .table = const_cast<std::byte*>(plan.table_at(table, b)),
                                .rows = plan.size,
                                .count = plan.count,
                                .width = plan.width,
                                .x_dtype = plan.rows.type.dtype,
                                .table_dtype = plan.table.type.dtype,
                                .first_id = first_id(r, plan.has_offset)},
                               r.workspace + sorted_at);
                }
                plan.table.write(r, isa, r.results[0]);
              },
          .choice = "scatter rows"};
}

}  // namespace

void gather_kernels(KernelTable& table) {
  table.emplace("gather_rows", make_gather);
  table.emplace("scatter_rows", make_scatter);
}

}  // namespace mw::cpu
