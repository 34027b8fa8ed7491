// One list of cases per op drives every check of that op: type rule, print and parse, gradient against finite differences,
// decomposition, shards against the whole, and (by the backends) kernel against reference.
//
//   const OpCases kCases("dot", {
//       {.name = "contract_last", .operands = {normal("f32[batch=2, embed=4]"), normal("f32[mlp=6, embed=4]")},
//        .attributes = {{"contract", names({"embed"})}}, .results = {"f32[batch=2, mlp=6]"}},
//   });
//   const OpErrors kErrors("dot", {{.operands = {"f32[batch=2]", "f32[mlp=6]"}, .attributes = ..., .message = "is not in"}});
//
// Each op of a list becomes the tests ops.OP.types, ops.OP.text, ops.OP.gradient, ops.OP.decomposition, ops.OP.shards.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "ir/builder.h"
#include "ir/op_def.h"

namespace mw::testing {

// What the random elements of an operand look like.
enum class Fill : uint8_t {
  kNormal,    // standard normal times `scale`
  kPositive,  // uniform in [0.5, 2] times `scale`
  kDistinct,  // normal, and no two elements nearer than 0.1: for max and sorting, where ties have no derivative
  kIds,       // integers in [low, low + range)
  kMask,      // 0 or 1
  kExactly,   // `values`, repeated to fill
};

struct OperandSpec {
  std::string type;  // cases are written in f32; in_dtype() gives them in another float dtype
  Fill fill = Fill::kNormal;
  double scale = 1.0;
  int64_t low = 0, range = 2;
  std::vector<double> values = {};
  bool differentiable = true;  // of float operands: the gradient is compared with finite differences
  bool fixed_dtype = false;    // stays f32 in a bf16 case (statistics, learning rates)
};

OperandSpec normal(std::string type, double scale = 1.0);
OperandSpec positive(std::string type, double scale = 1.0);
OperandSpec distinct(std::string type);
OperandSpec ids(std::string type, int64_t low, int64_t range);  // integers in [low, low + range)
OperandSpec mask(std::string type);
OperandSpec exactly(std::string type, std::vector<double> values);
OperandSpec constant_of(OperandSpec operand);  // not differentiable
OperandSpec fixed(OperandSpec operand);        // keeps its dtype in every variant

inline AttributeValue names(std::vector<std::string> list) { return list; }
inline AttributeValue sizes(std::vector<int64_t> list) { return list; }

struct OpCase {
  std::string name;  // of the case; unique within its op
  std::vector<OperandSpec> operands = {};
  Attributes attributes = {};
  std::vector<std::string> results = {};  // expected types
  std::string op = {};                    // filled by OpCases
  std::vector<size_t> upstream = {};      // results that get an upstream gradient; none named: every float result
  bool upstream_from_batch = false;       // the upstream gradient does not depend on parameters
  bool other_dtypes = true;               // the case is also valid in bf16
  double gradient_tolerance = 1e-6;       // of the largest gradient
  double shard_tolerance = 1e-9;          // of the largest element
};

struct OpErrorCase {
  std::vector<std::string> operands;  // types
  Attributes attributes;
  std::string message;  // a part of it
};

// Registers the cases and tests of one op. Used as namespace-scope constants, one list per op.
struct OpCases {
  OpCases(const char* op, std::vector<OpCase> cases);
};
struct OpErrors {
  OpErrors(const char* op, std::vector<OpErrorCase> errors);
};

const std::vector<OpCase>& all_op_cases();

// The case with every f32 that is not fixed in `dtype`.
OpCase in_dtype(const OpCase& op_case, DType dtype);

// Random operands, the same for the same seed.
std::vector<HostArray> make_operands(const OpCase& op_case, uint64_t seed);

// The op's reference on given operands, not rounded.
std::vector<HostArray> evaluate_op_reference(const OpDef& def, const Attributes& attributes, const std::vector<HostArray>& operands);

// max |a - b| / max(|b|, tiny) over all elements; infinity where types or NaNs differ.
double relative_difference(const HostArray& a, const HostArray& b);

}  // namespace mw::testing
