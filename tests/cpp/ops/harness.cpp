#include "ops/harness.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "ops/checks.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

std::vector<OpCase>& mutable_cases() {
  static std::vector<OpCase> cases;
  return cases;
}

// Runs a check over all cases of one op and reports every failure together.
void run_check(const std::string& op, void (*check)(const OpCase&)) {
  std::string failures;
  for (const OpCase& op_case : all_op_cases()) {
    if (op_case.op != op) continue;
    try {
      check(op_case);
    } catch (const std::exception& error) {
      failures += "\n  case '" + op_case.name + "': " + error.what();
    }
  }
  if (!failures.empty()) throw Failure(failures);
}

std::string in_dtype(const std::string& type_text, DType dtype) {
  Type type = parse_type(type_text);
  if (type.dtype == DType::kF32) type.dtype = dtype;
  return to_string(type);
}

}  // namespace

OperandSpec normal(std::string type, double scale) { return {.type = std::move(type), .scale = scale}; }
OperandSpec positive(std::string type, double scale) { return {.type = std::move(type), .fill = Fill::kPositive, .scale = scale}; }
OperandSpec distinct(std::string type) { return {.type = std::move(type), .fill = Fill::kDistinct}; }
OperandSpec ids(std::string type, int64_t low, int64_t range) {
  return {.type = std::move(type), .fill = Fill::kIds, .low = low, .range = range, .differentiable = false};
}
OperandSpec mask(std::string type) { return {.type = std::move(type), .fill = Fill::kMask, .differentiable = false}; }
OperandSpec exactly(std::string type, std::vector<double> values) {
  return {.type = std::move(type), .fill = Fill::kExactly, .values = std::move(values), .differentiable = false};
}
OperandSpec constant_of(OperandSpec operand) {
  operand.differentiable = false;
  return operand;
}
OperandSpec fixed(OperandSpec operand) {
  operand.fixed_dtype = true;
  return operand;
}

OpCases::OpCases(const char* op, std::vector<OpCase> cases) {
  for (OpCase& op_case : cases) {
    op_case.op = op;
    mutable_cases().push_back(std::move(op_case));
  }
  const std::string name = op;
  const auto add = [&](const char* what, void (*check)(const OpCase&)) {
    register_test("ops", (name + "." + what).c_str(), Tag::kFast, [name, check] { run_check(name, check); });
  };
  add("types", check_types);
  add("text", check_text);
  add("gradient", check_gradient);
  add("decomposition", check_decomposition);
  add("shards", check_shards);
}

OpErrors::OpErrors(const char* op, std::vector<OpErrorCase> errors) {
  register_test("ops", (std::string(op) + ".errors").c_str(), Tag::kFast, [name = std::string(op), errors = std::move(errors)] {
    for (const OpErrorCase& error : errors) check_error(name, error);
  });
}

const std::vector<OpCase>& all_op_cases() { return mutable_cases(); }

OpCase in_dtype(const OpCase& op_case, DType dtype) {
  OpCase other = op_case;
  for (OperandSpec& operand : other.operands) {
    if (!operand.fixed_dtype) operand.type = in_dtype(operand.type, dtype);
  }
  for (std::string& result : other.results) result = in_dtype(result, dtype);
  if (other.attributes.find("type")) other.attributes.set("type", in_dtype(other.attributes.text("type"), dtype));
  return other;
}

std::vector<HostArray> make_operands(const OpCase& op_case, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> gaussian;
  std::uniform_real_distribution<double> uniform(0.5, 2.0);
  std::vector<HostArray> operands;
  for (const OperandSpec& spec : op_case.operands) {
    HostArray array{parse_type(spec.type), {}};
    const size_t count = static_cast<size_t>(array.type.elements());
    for (size_t i = 0; i < count; ++i) {
      switch (spec.fill) {
        case Fill::kNormal:
          array.data.push_back(gaussian(engine) * spec.scale);
          break;
        case Fill::kPositive:
          array.data.push_back(uniform(engine) * spec.scale);
          break;
        case Fill::kDistinct:
          array.data.push_back((static_cast<double>(i) - static_cast<double>(count) / 2) * 0.15 + 0.02 * (uniform(engine) - 1.25));
          break;
        case Fill::kIds:
          array.data.push_back(static_cast<double>(spec.low + static_cast<int64_t>(engine() % static_cast<uint64_t>(spec.range))));
          break;
        case Fill::kMask:
          array.data.push_back(static_cast<double>(engine() % 2));
          break;
        case Fill::kExactly:
          array.data.push_back(spec.values.at(i % spec.values.size()));
          break;
      }
    }
    if (spec.fill == Fill::kDistinct) std::shuffle(array.data.begin(), array.data.end(), engine);
    operands.push_back(std::move(array));
  }
  return operands;
}

std::vector<HostArray> evaluate_op_reference(const OpDef& def, const Attributes& attributes, const std::vector<HostArray>& operands) {
  Signature signature;
  signature.attributes = &attributes;
  ReferenceContext context;
  context.attributes = &attributes;
  for (const HostArray& operand : operands) {
    signature.operands.push_back(&operand.type);
    context.operands.push_back(&operand);
  }
  std::vector<HostArray> results;
  for (Type& type : infer_types(def, signature)) {
    const size_t count = static_cast<size_t>(type.elements());
    results.push_back({std::move(type), std::vector<double>(count, 0.0)});
  }
  for (HostArray& result : results) context.results.push_back(&result);
  def.reference(context);
  return results;
}

double relative_difference(const HostArray& a, const HostArray& b) {
  if (a.type.dims != b.type.dims || a.data.size() != b.data.size()) return INFINITY;
  double largest = 1e-30, difference = 0;
  for (size_t i = 0; i < a.data.size(); ++i) {
    if (a.data[i] == b.data[i]) continue;  // equal infinities too
    if (!std::isfinite(a.data[i]) || !std::isfinite(b.data[i])) return INFINITY;
    difference = std::max(difference, std::abs(a.data[i] - b.data[i]));
  }
  for (const double x : b.data) {
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  }
  return difference == 0 ? 0 : difference / largest;
}

}  // namespace mw::testing
