#include "passes/differentiate.h"

#include <unordered_map>

#include "base/error.h"
#include "ir/builder.h"
#include "ops/elementwise.h"
#include "passes/edit.h"

namespace mw {
namespace {

class Reverse {
 public:
  Reverse(Builder& builder, const std::vector<ValueId>& parameters) : builder_(builder), forward_ops_(builder.program().ops.size()) {
    depends_.assign(builder.program().values.size(), kUnknown);
    for (const ProgramInput& input : builder.program().inputs) depends_[static_cast<size_t>(input.value)] = kNo;
    for (const ValueId id : parameters) depends_[static_cast<size_t>(id)] = kYes;
    gradients_.resize(builder.program().values.size());
  }

  void run(ValueId loss) {
    gradients_[static_cast<size_t>(loss)] = constant(builder_, 1.0);
    for (size_t i = forward_ops_; i-- > 0;) visit(i);
  }

  std::optional<Tensor> gradient(ValueId id) const { return gradients_[static_cast<size_t>(id)]; }
  const std::vector<std::pair<ValueId, ValueId>>& replaced() const { return replaced_; }

 private:
  enum : int8_t { kUnknown = -1, kNo = 0, kYes = 1 };

  // Values are made in order, so the operands of a value are known before it.
  bool depends(ValueId id) {
    const Program& program = builder_.program();
    if (depends_.size() < program.values.size()) depends_.resize(program.values.size(), kUnknown);
    for (; known_ <= static_cast<size_t>(id); ++known_) {
      if (depends_[known_] != kUnknown) continue;
      depends_[known_] = kNo;
      for (const ValueId operand : program.ops[static_cast<size_t>(program.values[known_].producer)].operands) {
        if (depends_[static_cast<size_t>(operand)] == kYes) depends_[known_] = kYes;
      }
    }
    return depends_[static_cast<size_t>(id)] == kYes;
  }

  void visit(size_t index) {
    const Op op = builder_.program().ops[index];  // a copy: appending moves the ops
    GradientContext context{.builder = builder_, .op = op};
    bool reached = false, wanted = false;
    for (const ValueId id : op.results) {
      context.results.push_back(builder_.tensor(id));
      context.upstream.push_back(gradients_[static_cast<size_t>(id)]);
      reached |= gradients_[static_cast<size_t>(id)].has_value();
    }
    if (!reached) return;
    for (const ValueId id : op.operands) {
      context.operands.push_back(builder_.tensor(id));
      context.needed.push_back(is_float(builder_.program().type(id).dtype) && depends(id));
      wanted |= context.needed.back();
    }
    if (!wanted) return;
    if (!op.def->gradient)
      throw UserError(builder_.program().describe(op) + " has no gradient, but the loss depends on a parameter through it");
    context.gradients.resize(op.operands.size());
    context.replacements.resize(op.results.size());
    context.depends_on_parameters = [this](Tensor t) { return depends(t.id); };
    builder_.set_origin(builder_.program(), op);
    op.def->gradient(context);
    for (size_t i = 0; i < op.operands.size(); ++i) {
      if (context.needed[i] && context.gradients[i]) accumulate(op, op.operands[i], *context.gradients[i]);
    }
    for (size_t i = 0; i < op.results.size(); ++i) {
      if (context.replacements[i]) replaced_.emplace_back(op.results[i], context.replacements[i]->id);
    }
  }

  void accumulate(const Op& op, ValueId id, Tensor gradient) {
    MW_CHECK(gradient.type().dims == builder_.program().type(id).dims, builder_.program().describe(op), ": the gradient ",
             to_string(gradient.type()), " of ", to_string(builder_.program().type(id)), " has other dims");
    std::optional<Tensor>& sum = gradients_[static_cast<size_t>(id)];
    sum = sum ? *sum + gradient : gradient;
  }

  Builder& builder_;
  size_t forward_ops_;
  size_t known_ = 0;
  std::vector<int8_t> depends_;
  std::vector<std::optional<Tensor>> gradients_;
  std::vector<std::pair<ValueId, ValueId>> replaced_;
};

}  // namespace

Program differentiate(Program program, const std::string& loss, std::vector<std::string> parameters) {
  const ProgramOutput* output = program.find_output(loss);
  if (!output) {
    std::vector<std::string> names;
    for (const ProgramOutput& o : program.outputs) names.push_back(o.name);
    throw UserError("there is no result '" + loss + "' to differentiate" + did_you_mean(loss, names));
  }
  const ValueId loss_value = output->value;
  if (program.type(loss_value) != Type{DType::kF32, {}}) {
    throw UserError("only an f32 scalar can be differentiated; '" + loss + "' is " + to_string(program.type(loss_value)));
  }
  std::vector<std::string> known;
  std::unordered_map<std::string, ValueId> by_name;
  for (const ProgramInput& input : program.inputs) {
    if (input.kind != InputKind::kParameter) continue;
    known.push_back(input.name);
    by_name.emplace(input.name, input.value);
  }
  if (parameters.empty()) parameters = known;
  std::vector<ValueId> values;
  for (const std::string& name : parameters) {
    const auto at = by_name.find(name);
    if (at == by_name.end()) throw UserError("there is no parameter '" + name + "'" + did_you_mean(name, known));
    values.push_back(at->second);
  }

  Builder builder(std::move(program));
  builder.set_pass("differentiate");
  Reverse reverse(builder, values);
  reverse.run(loss_value);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Type type = builder.program().type(values[i]).with_dtype(DType::kF32);
    const std::optional<Tensor> gradient = reverse.gradient(values[i]);
    // A parameter that the loss does not reach has the gradient zero.
    builder.output(kGradientPrefix + parameters[i], gradient ? cast(*gradient, DType::kF32) : constant(builder, 0.0, type));
  }
  Program result = builder.take();
  for (const auto& [from, to] : reverse.replaced()) replace_uses(result, from, to);
  if (!reverse.replaced().empty()) order_by_dependencies(result);
  remove_dead_ops(result);
  return result;
}

}  // namespace mw
