#include "exec/reference/evaluate.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace mw {
namespace {

std::string index_text(const Type& type, int64_t flat) {
  std::string text = "[";
  const std::vector<int64_t> strides = type.strides();
  for (size_t d = 0; d < type.dims.size(); ++d) {
    text += (d > 0 ? ", " : "") + type.dims[d].name + "=" + std::to_string(flat / strides[d]);
    flat %= strides[d];
  }
  return text + "]";
}

int64_t first_not_finite(const HostArray& array) {
  const auto at = std::find_if(array.data.begin(), array.data.end(), [](double x) { return !std::isfinite(x); });
  return at == array.data.end() ? -1 : at - array.data.begin();
}

bool holds_nan(const HostArray& array) {
  return std::any_of(array.data.begin(), array.data.end(), [](double x) { return std::isnan(x); });
}

}  // namespace

void round_to_dtype(HostArray& array) {
  switch (array.type.dtype) {
    case DType::kF64:
      return;
    case DType::kF32:
      for (double& x : array.data) x = static_cast<float>(x);
      return;
    case DType::kBF16:
      for (double& x : array.data) x = to_float(to_bf16(static_cast<float>(x)));
      return;
    case DType::kF16:
      for (double& x : array.data) x = to_float(to_f16(static_cast<float>(x)));
      return;
    case DType::kI32:
    case DType::kU8:
    case DType::kI8:
      for (double& x : array.data) x = std::trunc(x);
      return;
  }
}

void ReferenceEvaluator::set_input(const Program& program, const ProgramInput& input, HostArray array) {
  const Type& expected = program.type(input.value);
  if (array.type != expected) {
    throw UserError("input '" + input.name + "' of " + program.name + " is " + to_string(array.type) + "; expected " + to_string(expected));
  }
  MW_CHECK(static_cast<int64_t>(array.data.size()) == expected.elements(), "input '", input.name, "' holds ", array.data.size(),
           " elements");
  if (options_.check_finite && holds_nan(array)) throw UserError("input '" + input.name + "' of " + program.name + " holds a NaN");
  if (options_.round_results) round_to_dtype(array);
  values_.insert_or_assign(input.value, std::move(array));
}

const HostArray& ReferenceEvaluator::value(ValueId id) const {
  const auto at = values_.find(id);
  MW_CHECK(at != values_.end(), "value %", id, " is not held: never made, or released");
  return at->second;
}

void ReferenceEvaluator::evaluate_op(const Program& program, size_t op_index) {
  const Op& op = program.ops.at(op_index);
  if (!op.def->reference) throw UserError(program.describe(op) + " has no reference: it cannot be evaluated op by op");
  ReferenceContext context;
  context.attributes = &op.attributes;
  for (const ValueId id : op.operands) context.operands.push_back(&value(id));
  std::vector<HostArray> results;
  for (const ValueId id : op.results) {
    results.push_back({program.type(id), std::vector<double>(static_cast<size_t>(program.type(id).elements()), 0.0)});
  }
  for (HostArray& result : results) context.results.push_back(&result);
  op.def->reference(context);
  for (size_t i = 0; i < results.size(); ++i) {
    if (options_.round_results) round_to_dtype(results[i]);
    values_.insert_or_assign(op.results[i], std::move(results[i]));
  }
  if (options_.check_finite) check(program, op);
}

// An infinity that an op was given (a constant, a mask) it may pass on; a NaN never.
void ReferenceEvaluator::check(const Program& program, const Op& op) const {
  if (op.operands.empty()) return;
  bool given = false;
  for (const ValueId id : op.operands) given = given || first_not_finite(value(id)) >= 0;
  for (size_t i = 0; i < op.results.size(); ++i) {
    const HostArray& result = value(op.results[i]);
    const int64_t at = first_not_finite(result);
    if (at < 0 || (given && !holds_nan(result))) continue;
    const auto count = std::count_if(result.data.begin(), result.data.end(), [](double x) { return !std::isfinite(x); });
    throw UserError(program.describe(op) + " is the first op that makes a NaN or an infinity: " + std::to_string(count) + " of the " +
                    std::to_string(result.data.size()) + " elements of its result " + to_string(result.type) + ", the first at " +
                    index_text(result.type, at));
  }
}

std::map<std::string, HostArray> evaluate_reference(const Program& program, std::map<std::string, HostArray> inputs,
                                                    ReferenceOptions options, const std::vector<ValueId>& capture) {
  ReferenceEvaluator evaluator(options);
  std::vector<std::string> known;
  for (const ProgramInput& input : program.inputs) {
    const auto at = inputs.find(input.name);
    if (at == inputs.end())
      throw UserError("input '" + input.name + "' of " + program.name + " (" + to_string(program.type(input.value)) + ") is missing");
    evaluator.set_input(program, input, std::move(at->second));
    inputs.erase(at);
    known.push_back(input.name);
  }
  if (!inputs.empty()) {
    const std::string& name = inputs.begin()->first;
    throw UserError(program.name + " has no input '" + name + "'" + did_you_mean(name, known));
  }

  constexpr size_t kForever = static_cast<size_t>(-1);
  std::vector<size_t> last_use(program.values.size(), 0);
  for (size_t i = 0; i < program.ops.size(); ++i) {
    for (const ValueId id : program.ops[i].operands) last_use[static_cast<size_t>(id)] = i;
    for (const ValueId id : program.ops[i].results) last_use[static_cast<size_t>(id)] = i;
  }
  for (const ProgramOutput& output : program.outputs) last_use[static_cast<size_t>(output.value)] = kForever;
  for (const ValueId id : capture) last_use.at(static_cast<size_t>(id)) = kForever;

  for (size_t i = 0; i < program.ops.size(); ++i) {
    evaluator.evaluate_op(program, i);
    for (const auto* ids : {&program.ops[i].operands, &program.ops[i].results}) {
      for (const ValueId id : *ids) {
        if (last_use[static_cast<size_t>(id)] == i) evaluator.release(id);
      }
    }
  }
  std::map<std::string, HostArray> results;
  for (const ProgramOutput& output : program.outputs) results.insert_or_assign(output.name, evaluator.value(output.value));
  for (const ValueId id : capture) results.insert_or_assign("%" + std::to_string(id), evaluator.value(id));
  return results;
}

}  // namespace mw
