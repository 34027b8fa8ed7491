#include "ops/expect.h"

#include "base/error.h"

namespace mw {
namespace {

std::string listed(const std::vector<std::string>& names) {
  std::string text = "[";
  for (size_t i = 0; i < names.size(); ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + "]";
}

UserError wrong(std::string_view operand, const Type& type, const std::string& expected) {
  return UserError(std::string(operand) + " is " + to_string(type) + "; expected " + expected);
}

}  // namespace

void expect_dims(std::string_view operand, const Type& type, const std::vector<std::string>& names) {
  if (type.dim_names() == names) return;
  std::string hint;
  for (const std::string& name : names) {
    if (!type.has(name)) hint = "; '" + name + "' is missing";
  }
  throw wrong(operand, type, "the dims " + listed(names) + hint);
}

void expect_same_dims(std::string_view operand, const Type& type, std::string_view like_name, const std::vector<Dim>& like) {
  if (type.dims == like) return;
  throw wrong(operand, type, "the dims of " + std::string(like_name) + ", " + to_string(Type{type.dtype, like}));
}

void expect_same_size(std::string_view dim, std::string_view a_name, const Type& a, std::string_view b_name, const Type& b) {
  if (a.size_of(dim) == b.size_of(dim)) return;
  throw UserError("dim '" + std::string(dim) + "' has two sizes: " + std::string(a_name) + " is " + to_string(a) + ", " +
                  std::string(b_name) + " is " + to_string(b));
}

void expect_dtype(std::string_view operand, const Type& type, DType dtype) {
  if (type.dtype != dtype) throw wrong(operand, type, std::string(dtype_name(dtype)) + "; cast it");
}

void expect_float(std::string_view operand, const Type& type) {
  if (!is_float(type.dtype)) throw wrong(operand, type, "a float dtype; cast it");
}

void expect_operands(const Signature& signature, size_t count) {
  MW_CHECK(signature.num_data_operands() == count, "the op has ", signature.num_data_operands(), " operands, not ", count);
  for (size_t i = count; i < signature.operands.size(); ++i) {
    MW_CHECK((signature.operand(i) == Type{DType::kI32, {}}), "a shard offset is ", to_string(signature.operand(i)), ", not an i32 scalar");
  }
}

}  // namespace mw
