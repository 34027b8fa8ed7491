// rope and rope_angles. Positions lack the dims between them and the innermost one (heads): one row of the table serves all of these.
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/elementwise.h"
#include "exec/cpu/kernels/reordered.h"
#include "exec/cpu/kernels/rope.h"
#include "ops/rope.h"

namespace mw::cpu {
namespace {

// How many of the outermost dims of x the rows of the table run over: those up to the last that positions have.
int table_dims(const Type& x, const Type& positions) {
  int last = 0;
  for (const Dim& dim : positions.dims) last = std::max(last, x.index_of(dim.name) + 1);
  return last;
}

Kernel make_rope(const Signature& s, const KernelEnvironment& environment) {
  const Type &x = s.operand(0), &positions = s.operand(1);
  expect_kernel_dtype("rope", x.dtype);
  const RopeAttributes attributes = RopeAttributes::from(*s.attributes);
  const int64_t head_dim = x.dims.back().size;
  const int outer = table_dims(x, positions);
  const Type row_positions{DType::kI32, {x.dims.begin(), x.dims.begin() + outer}};
  const int64_t rows = row_positions.elements(), heads = elements_from(x, outer) / std::max<int64_t>(head_dim, 1);
  const std::vector<float> frequencies = rope_frequencies(attributes, head_dim);

  WorkspaceParts parts;
  const Reordered spread(positions, row_positions.dims, parts);  // a position for every row, where the operand lacks a dim
  const int64_t table_at = parts.take(rope_table_bytes(rows, head_dim));
  const RopeCall call{.x = nullptr,
                      .y = nullptr,
                      .table = nullptr,
                      .rows = rows,
                      .heads = heads,
                      .head_dim = head_dim,
                      .rotary = head_dim,
                      .dtype = x.dtype,
                      .interleaved = attributes.pairing == "interleaved",
                      .inverse = attributes.inverse};
  return {.workspace_bytes = parts.bytes(),
          .run =
              [=, factor = static_cast<float>(attributes.attention_factor), isa = environment.isa](const KernelRun& r) {
                const auto* at = reinterpret_cast<const int32_t*>(spread.read(r, isa, r.operands[1]));
                float* table = reinterpret_cast<float*>(r.workspace + table_at);
                rope_table(r.pool, isa, at, rows, frequencies.data(), head_dim / 2, factor, table);
                RopeCall run = call;
                run.x = r.operands[0];
                run.y = r.results[0];
                run.table = table;
                rope(r.pool, isa, run);
              },
          .choice = "rope"};
}

// position * frequency
Kernel make_angles(const Signature& s, const KernelEnvironment& environment) {
  const int64_t pairs = s.attributes->integer("pairs"), rows = s.operand(0).elements();
  const std::vector<float> frequencies = rope_frequencies(RopeAttributes::from(*s.attributes), 2 * pairs);
  return {.run =
              [=, isa = environment.isa](const KernelRun& r) {
                const int64_t sizes[] = {rows, pairs};
                const ElementwiseInput inputs[] = {{r.operands[0], DType::kI32, 0, {1, 0}}, {frequencies.data(), DType::kF32, 1, {0, 1}}};
                const ElementwiseInstruction code[] = {{ElementwiseOp::kToF32, 2, 0}, {ElementwiseOp::kMul, 2, 2, 1}};
                const ElementwiseOutput outputs[] = {{r.results[0], DType::kF32, 2}};
                run_elementwise(r.pool, isa, {sizes, inputs, code, outputs});
              },
          .choice = "angles"};
}

}  // namespace

void rope_kernels(KernelTable& table) {
  table.emplace("rope", make_rope);
  table.emplace("rope_angles", make_angles);
}

}  // namespace mw::cpu
