#include "ops/expert_order.h"

#include "base/error.h"
#include "ir/dim_names.h"
#include "ops/expect.h"

namespace mw {
namespace {

bool starts_with(const Type& type, const std::vector<Dim>& dims) {
  if (type.dims.size() < dims.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (type.dims[i] != dims[i]) return false;
  }
  return true;
}

}  // namespace

std::vector<Dim> token_dims(const Type& indices) {
  expect_dtype("indices", indices, DType::kI32);
  if (indices.rank() < 2 || indices.dims.back().name != "top_k")
    throw UserError("indices are " + to_string(indices) + "; expected the dims of the tokens, then 'top_k'");
  return {indices.dims.begin(), indices.dims.end() - 1};
}

Dim expert_rows_dim(const Type& indices) { return {kExpertRows, indices.elements()}; }

std::vector<Dim> dims_of_rows(std::string_view operand, const Type& rows, const Type& indices) {
  const Dim dim = expert_rows_dim(indices);
  if (!starts_with(rows, {dim})) {
    throw UserError(std::string(operand) + " is " + to_string(rows) + "; expected " + dim.name + "=" + std::to_string(dim.size) +
                    " as the outermost dim, one row for each of the indices " + to_string(indices));
  }
  return {rows.dims.begin() + 1, rows.dims.end()};
}

std::vector<Dim> dims_of_tokens(std::string_view operand, const Type& x, const Type& indices) {
  const std::vector<Dim> tokens = token_dims(indices);
  if (!starts_with(x, tokens)) {
    throw UserError(std::string(operand) + " is " + to_string(x) + "; expected it to begin with the dims of the tokens, " +
                    to_string(Type{x.dtype, tokens}));
  }
  const bool has_choice = x.dims.size() > tokens.size() && x.dims[tokens.size()] == indices.dims.back();
  if (x.has("top_k") != has_choice)
    throw UserError(std::string(operand) + " is " + to_string(x) + "; expected 'top_k', where it has it, as in the indices " +
                    to_string(indices));
  return {x.dims.begin() + static_cast<int64_t>(tokens.size()) + (has_choice ? 1 : 0), x.dims.end()};
}

void expect_choice_weights(const Type& weights, const Type& indices) {
  expect_dtype("weights", weights, DType::kF32);
  expect_same_dims("weights", weights, "the indices", indices.dims);
}

std::vector<std::string> carried_by_rows(const Type& indices, std::string_view dim) {
  if (dim != kExpertRows) return {};
  std::vector<std::string> names;
  for (const Dim& token : token_dims(indices)) names.push_back(token.name);
  return names;
}

DimUse use_of_rows(const Type& indices, std::string_view dim, DimUse others) {
  if (dim == indices.dims.back().name) return DimUse::kWhole;
  return dim == kExpertRows || indices.has(dim) ? DimUse::kMapped : others;
}

std::vector<size_t> row_of_choices(const HostArray& indices, int64_t experts) {
  std::vector<size_t> next(static_cast<size_t>(experts) + 1, 0), rows;
  for (const double expert : indices.data) {
    if (expert < 0 || expert >= static_cast<double>(experts))
      throw UserError("expert " + std::to_string(static_cast<int64_t>(expert)) + " is chosen; there are " + std::to_string(experts));
    ++next[static_cast<size_t>(expert) + 1];
  }
  for (size_t e = 1; e < next.size(); ++e) next[e] += next[e - 1];
  for (const double expert : indices.data) rows.push_back(next[static_cast<size_t>(expert)]++);
  return rows;
}

}  // namespace mw
