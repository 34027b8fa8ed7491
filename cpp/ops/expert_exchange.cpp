// expert_counts, expert_dispatch, expert_return, dispatched_experts: type rules, and references for one part. The communicator runs them
// for more. Of a rank the counts are i32[2 experts]: the rows that it sends to each expert, then those that it receives, by sender, then by
// expert of its own. Where some rank of the group would receive more rows than are planned, nothing is sent at all: the first half holds
// -1 - count, the second zeros, and the run is repeated with more room.
#include "ops/expert_exchange.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "ir/dim_names.h"
#include "ops/expect.h"
#include "ops/op_list.h"

namespace mw {
namespace {

int64_t experts_of(const Signature& signature) {
  const int64_t experts = signature.attributes->integer("experts"), parts = signature.attributes->integer("parts");
  if (parts < 1 || experts < 1 || experts % parts != 0)
    throw UserError(std::to_string(experts) + " experts do not divide into " + std::to_string(parts) + " parts");
  return experts;
}

int64_t rows_of(const Signature& signature) {
  const int64_t rows = signature.attributes->integer("rows");
  if (rows < 0) throw UserError("'rows' is " + std::to_string(rows) + "; expected 0 or more");
  return rows;
}

void check_counts(const Type& counts) {
  expect_dtype("counts", counts, DType::kI32);
  if (counts.rank() != 1 || counts.dims[0].name != kExpertCounts)
    throw UserError("counts are " + to_string(counts) + "; expected one dim, '" + kExpertCounts + "'");
}

std::vector<Type> infer_counts(const Signature& signature) {
  const Type& experts = signature.operand(0);
  experts_of(signature);
  rows_of(signature);
  expect_dtype("row_experts", experts, DType::kI32);
  if (experts.rank() != 1 || experts.dims[0].name != kExpertRows)
    throw UserError("row_experts are " + to_string(experts) + "; expected one dim, '" + kExpertRows + "'");
  return {{DType::kI32, {{kExpertCounts, signature.attributes->integer("counts")}}}};
}

std::vector<Type> infer_moved(const Signature& signature) {
  Type rows = signature.operand(0);
  experts_of(signature);
  check_counts(signature.operand(1));
  if (rows.dims.empty() || rows.dims[0].name != kExpertRows)
    throw UserError("rows are " + to_string(rows) + "; expected '" + kExpertRows + "' as the outermost dim");
  rows.dims[0].size = rows_of(signature);
  return {rows};
}

std::vector<Type> infer_experts(const Signature& signature) {
  experts_of(signature);
  check_counts(signature.operand(0));
  return {{DType::kI32, {{kExpertRows, rows_of(signature)}}}};
}

DimRole role(const Signature&, std::string_view) { return {.use = DimUse::kMapped}; }

std::vector<std::string> carries(const Signature&, std::string_view dim) {
  if (dim == kExpertCounts) return {kExpertRows};
  return {};
}

void localize(Attributes& attributes, const std::function<int64_t(std::string_view dim)>& shards) {
  for (const char* size : {"rows", "counts"}) {
    if (attributes.find(size)) attributes.set(size, attributes.integer(size) / shards(kExpertRows));
  }
}

bool linear_in_rows(const Signature&, size_t operand) { return operand == 0; }
Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }

void check_one_part(const ReferenceContext& context) {
  MW_CHECK(context.attributes->integer("parts") == 1, "an exchange between several parts is run by a communicator");
}

void reference_counts(const ReferenceContext& context) {
  check_one_part(context);
  const auto experts = static_cast<size_t>(context.attributes->integer("experts"));
  std::vector<double>& counts = context.result(0).data;
  MW_CHECK(counts.size() == 2 * experts, "counts of ", experts, " experts are ", counts.size(), " numbers");
  for (const double expert : context.operand(0).data) {
    if (!(expert >= 0 && expert < static_cast<double>(experts)))
      throw UserError("a row is of expert " + std::to_string(expert) + "; expected 0 to " + std::to_string(experts - 1));
    ++counts[static_cast<size_t>(expert)];
  }
  const bool fits = context.operand(0).type.elements() <= context.attributes->integer("rows");
  for (size_t e = 0; e < experts; ++e) {
    counts[experts + e] = fits ? counts[e] : 0;
    if (!fits) counts[e] = -1 - counts[e];
  }
}

// The rows that a rank receives: the second half of its counts.
size_t rows_received(const HostArray& counts, int64_t room) {
  double rows = 0;
  for (size_t i = counts.data.size() / 2; i < counts.data.size(); ++i) {
    if (!(counts.data[i] >= 0) || counts.data[i] != std::trunc(counts.data[i]))
      throw UserError("a count of rows is " + std::to_string(counts.data[i]) + "; expected a whole number from 0");
    rows += counts.data[i];
  }
  if (rows > static_cast<double>(room))
    throw UserError("the counts add up to " + std::to_string(rows) + " rows; there are " + std::to_string(room));
  return static_cast<size_t>(rows);
}

// One rank's rows are sorted as they should be already.
void reference_moved(const ReferenceContext& context) {
  check_one_part(context);
  const HostArray& from = context.operand(0);
  HostArray& to = context.result(0);
  const size_t rows = rows_received(context.operand(1), std::min(from.type.dims[0].size, to.type.dims[0].size));
  if (rows == 0) return;
  const size_t width = from.data.size() / static_cast<size_t>(from.type.dims[0].size);
  std::copy_n(from.data.begin(), rows * width, to.data.begin());
}

void reference_experts(const ReferenceContext& context) {
  check_one_part(context);
  const HostArray& counts = context.operand(0);
  const size_t experts = counts.data.size() / 2;
  std::vector<double>& y = context.result(0).data;
  rows_received(counts, context.result(0).type.dims[0].size);
  std::fill(y.begin(), y.end(), static_cast<double>(experts));
  for (size_t e = 0, row = 0; e < experts; ++e) {
    for (double i = 0; i < counts.data[experts + e]; ++i) y[row++] = static_cast<double>(e);
  }
}

constexpr OpDef def(std::string_view name, std::string_view doc, int num_operands, std::vector<Type> (*infer)(const Signature&),
                    void (*reference)(const ReferenceContext&), bool linear) {
  OpDef d{.name = name,
          .doc = doc,
          .num_operands = num_operands,
          .infer = infer,
          .role = role,
          .carries = carries,
          .cost = moves_only,
          .reference = reference,
          .localize = localize,
          .collective = true};
  if (linear) d.linear_in = linear_in_rows;
  return d;
}

constexpr std::array<OpDef, 4> kDefs{
    def("expert_counts", "How many rows this rank sends to each expert, and receives from each part for each expert of its own", 1,
        infer_counts, reference_counts, false),
    def("expert_dispatch",
        "The rows of this rank's experts from all parts, sorted by expert, then by part; rows beyond the counts are zeros", 2, infer_moved,
        reference_moved, true),
    def("expert_return", "The inverse of expert_dispatch: each row where it came from", 2, infer_moved, reference_moved, true),
    def("dispatched_experts", "Of each dispatched row the expert, counted from this rank's first; nothing is sent", 1, infer_experts,
        reference_experts, false)};

Attributes attributes_of(const ExpertExchange& e) {
  return {{"axes", e.axes}, {"parts", e.parts}, {"experts", e.experts}, {"rows", e.rows}};
}

}  // namespace

std::span<const OpDef> expert_exchange_ops() { return kDefs; }

Tensor expert_counts(Tensor row_experts, const ExpertExchange& exchange, Source source) {
  Attributes attributes = attributes_of(exchange);
  attributes.set("counts", exchange.counts);
  return row_experts.builder->append1(kDefs[0], {row_experts}, std::move(attributes), source);
}

Tensor expert_dispatch(Tensor rows, Tensor counts, const ExpertExchange& exchange, Source source) {
  return rows.builder->append1(kDefs[1], {rows, counts}, attributes_of(exchange), source);
}

Tensor expert_return(Tensor rows, Tensor counts, const ExpertExchange& exchange, int64_t num_rows, Source source) {
  Attributes attributes = attributes_of(exchange);
  attributes.set("rows", num_rows);
  return rows.builder->append1(kDefs[2], {rows, counts}, std::move(attributes), source);
}

Tensor dispatched_experts(Tensor counts, const ExpertExchange& exchange, Source source) {
  return counts.builder->append1(kDefs[3], {counts}, attributes_of(exchange), source);
}

}  // namespace mw
