// gather_rows: y[I.., O..] = table[ids[I..], O..]; scatter_rows, its transpose: table[r, O..] = sum over {I : ids[I] = r} of x[I.., O..].
#include "ops/gather.h"

#include <array>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/loop_nest.h"
#include "ops/op_list.h"
#include "ops/shape.h"

namespace mw {
namespace {

void check_ids(const Type& ids, const std::string& dim) {
  if (ids.dtype != DType::kI32) throw UserError("the ids are " + to_string(ids) + "; expected i32");
  if (ids.has(dim)) throw UserError("the ids " + to_string(ids) + " have the dim '" + dim + "' that they index");
}

// Dims of I.. then O..: what one look-up visits. `table` holds `dim`; a dim in both has one size.
std::vector<Dim> looked_up(const Type& ids, const Type& table, const std::string& dim) {
  std::vector<Dim> dims = ids.dims;
  for (const Dim& other : table.dims) {
    if (other.name == dim) continue;
    if (!ids.has(other.name)) {
      dims.push_back(other);
    } else if (ids.size_of(other.name) != other.size) {
      throw UserError("table " + to_string(table) + " and ids " + to_string(ids) + ": dim '" + other.name + "' has two sizes");
    }
  }
  return dims;
}

bool linear_in_first(const Signature&, size_t operand) { return operand == 0; }
Cost moves_only(const Signature& signature) {  // of a table only the rows that are looked up
  const double rows = static_cast<double>(std::min(signature.operand(0).bytes(), signature.result(0).bytes()));
  return {.flops = 0, .bytes = 2 * rows + static_cast<double>(signature.operand(1).bytes())};
}

// Visits every looked-up element whose row is here: body(offset in rows, offset in table).
template <typename Body>
void each_row_element(const ReferenceContext& context, const HostArray& rows, const HostArray& table, Body&& body) {
  const std::string dim = context.attributes->text("dim");
  const HostArray& ids = context.operand(1);
  const double first = context.operands.size() > 2 ? context.operand(2).data[0] : 0.0;
  const int64_t size = table.type.size_of(dim), step = table.type.strides()[static_cast<size_t>(table.type.index_of(dim))];
  LoopNest(looked_up(ids.type, table.type, dim), {&ids.type, &rows.type, &table.type}).run([&](int64_t, const int64_t* at) {
    const auto row = static_cast<int64_t>(ids.data[static_cast<size_t>(at[0])] - first);
    if (row >= 0 && row < size) body(static_cast<size_t>(at[1]), static_cast<size_t>(at[2] + row * step));
  });
}

// ---- gather_rows {dim}: table, ids ----

std::vector<Type> infer_gather(const Signature& signature) {
  const Type &table = signature.operand(0), &ids = signature.operand(1);
  const std::string dim = signature.attributes->text("dim");
  table.size_of(dim);  // UserError when absent
  check_ids(ids, dim);
  return {{table.dtype, looked_up(ids, table, dim)}};
}

DimRole role_gather(const Signature& signature, std::string_view dim) {
  if (signature.attributes->text("dim") == dim) return {.use = DimUse::kContracted, .needs_offset = true};
  return {};
}

void gradient_gather(GradientContext& context) {
  const Tensor table = context.operands[0];
  context.gradients[0] = scatter_rows(*context.upstream[0], context.operands[1], context.attributes().text("dim"),
                                      table.type().with_dtype(context.gradient_dtype(0)));
}

void reference_gather(const ReferenceContext& context) {
  const HostArray& table = context.operand(0);
  HostArray& y = context.result(0);
  each_row_element(context, y, table, [&](size_t row, size_t at) { y.data[row] = table.data[at]; });
}

// ---- scatter_rows {dim, type}: x, ids ----

std::vector<Type> infer_scatter(const Signature& signature) {
  const Type &x = signature.operand(0), &ids = signature.operand(1);
  const std::string dim = signature.attributes->text("dim");
  const Type table = parse_type(signature.attributes->text("type"));
  if (!is_float(x.dtype) || !is_float(table.dtype))
    throw UserError("rows are added: expected floats, found " + to_string(x) + " into " + to_string(table));
  table.size_of(dim);  // UserError when absent
  check_ids(ids, dim);
  const std::vector<Dim> dims = looked_up(ids, table, dim);
  bool same = static_cast<int>(dims.size()) == x.rank();
  for (const Dim& d : dims) same = same && x.has(d.name) && x.size_of(d.name) == d.size;
  if (!same)
    throw UserError("rows " + to_string(x) + " at ids " + to_string(ids) + " do not fit the table " + to_string(table) + "; expected " +
                    to_string(Type{x.dtype, dims}));
  return {table};
}

DimRole role_scatter(const Signature& signature, std::string_view dim) {
  if (signature.attributes->text("dim") == dim) return {.use = DimUse::kMapped, .needs_offset = true};
  return {.use = parse_type(signature.attributes->text("type")).has(dim) ? DimUse::kMapped : DimUse::kContracted};
}

void gradient_scatter(GradientContext& context) {
  const Tensor g = cast(*context.upstream[0], context.gradient_dtype(0));
  context.gradients[0] =
      reorder(gather_rows(g, context.operands[1], context.attributes().text("dim")), context.operands[0].type().dim_names());
}

void reference_scatter(const ReferenceContext& context) {
  const HostArray& x = context.operand(0);
  HostArray& table = context.result(0);
  each_row_element(context, x, table, [&](size_t row, size_t at) { table.data[at] += x.data[row]; });
}

constexpr std::array<OpDef, 2> kDefs{
    OpDef{.name = "gather_rows",
          .doc = "y[ids' dims.., other dims..] = table[ids]; an id outside the table, or the shard of it, gives zeros",
          .num_operands = 2,
          .infer = infer_gather,
          .role = role_gather,
          .gradient = gradient_gather,
          .cost = moves_only,
          .reference = reference_gather,
          .linear_in = linear_in_first},
    OpDef{
        .name = "scatter_rows",
        .doc = "A table of zeros to which each row of x is added at its id, formed in FP32 or better; an id outside the table adds nothing",
        .num_operands = 2,
        .infer = infer_scatter,
        .role = role_scatter,
        .gradient = gradient_scatter,
        .cost = moves_only,
        .reference = reference_scatter,
        .linear_in = linear_in_first,
        .localize = localize_type}};

}  // namespace

std::span<const OpDef> gather_ops() { return kDefs; }

Tensor gather_rows(Tensor table, Tensor ids, std::string dim, Source source) {
  return table.builder->append1(kDefs[0], {table, ids}, {{"dim", std::move(dim)}}, source);
}

Tensor scatter_rows(Tensor x, Tensor ids, std::string dim, Type table, Source source) {
  return x.builder->append1(kDefs[1], {x, ids}, {{"dim", std::move(dim)}, {"type", to_string(table)}}, source);
}

Tensor scatter_rows(Tensor x, Tensor ids, Dim dim, DType dtype, Source source) {
  Type table{dtype, {dim}};
  for (const Dim& other : without(x.type(), ids.type().dim_names())) table.dims.push_back(other);
  return scatter_rows(x, ids, dim.name, std::move(table), source);
}

}  // namespace mw
