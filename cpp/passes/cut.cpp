#include "passes/cut.h"

#include <map>
#include <unordered_map>

#include "base/error.h"
#include "ir/builder.h"
#include "ops/elementwise.h"
#include "passes/differentiate.h"
#include "passes/edit.h"

namespace mw {
namespace {

bool starts_with(const std::string& text, std::string_view prefix) { return text.compare(0, prefix.size(), prefix) == 0; }

class Cutter {
 public:
  explicit Cutter(const Program& training) : training_(training), backward_(training.ops.size(), false) {
    const int32_t differentiate = [&] {
      for (size_t i = 0; i < training.passes.size(); ++i) {
        if (training.passes[i] == "differentiate") return static_cast<int32_t>(i);
      }
      return int32_t{-1};
    }();
    for (size_t i = 0; i < training.ops.size(); ++i) {
      const Op& op = training.ops[i];
      backward_[i] = op.pass == differentiate;
      for (const ValueId id : op.operands) backward_[i] = backward_[i] || in_backward(id);
    }
    find_crossing();
  }

  Piece forward() const {
    Builder builder("forward");
    Copier copier(training_, builder);
    declare_inputs(training_, builder, copier);
    for (size_t i = 0; i < training_.ops.size(); ++i) {
      if (!backward_[i]) copier.copy(training_.ops[i]);
    }
    for (const auto& [id, name] : crossing_) builder.output(name, copier[id], OutputKind::kCarried);
    return finish(builder, "forward", "");
  }

  Piece backward(bool first, bool last) const {
    Builder builder("backward");
    Copier copier(training_, builder);
    declare_inputs(training_, builder, copier);
    for (const auto& [id, name] : crossing_) copier.map(id, builder.carried(name, training_.type(id)));
    std::unordered_map<ValueId, std::vector<const ProgramOutput*>> outputs;
    for (const ProgramOutput& output : training_.outputs) outputs[output.value].push_back(&output);
    const auto deliver = [&](ValueId id) {
      const auto at = outputs.find(id);
      if (at == outputs.end()) return;
      for (const ProgramOutput* output : at->second) sum_up(builder, *output, copier[id], first, last);
    };
    for (size_t i = 0; i < training_.ops.size(); ++i) {
      const Op& op = training_.ops[i];
      if (!backward_[i]) continue;
      for (const ValueId id : op.operands) remake(training_, copier, id);
      copier.copy(op);
      for (const ValueId id : op.results) deliver(id);
    }
    for (const ProgramOutput& output : training_.outputs) {
      if (in_backward(output.value)) continue;
      remake(training_, copier, output.value);
      deliver(output.value);
    }
    return finish(builder, "backward", variant_name(first, last));
  }

 private:
  bool in_backward(ValueId id) const {
    const int32_t producer = training_.values[static_cast<size_t>(id)].producer;
    return producer >= 0 && backward_[static_cast<size_t>(producer)];
  }

  void find_crossing() {
    const auto need = [&](auto&& self, ValueId id) -> void {
      const int32_t producer = training_.values[static_cast<size_t>(id)].producer;
      if (producer < 0 || backward_[static_cast<size_t>(producer)] || crossing_.count(id)) return;
      const Op& op = training_.ops[static_cast<size_t>(producer)];
      if (is_remade(op)) {
        for (const ValueId operand : op.operands) self(self, operand);
        return;
      }
      crossing_.emplace(id, crossing_name(training_, id));
    };
    for (size_t i = 0; i < training_.ops.size(); ++i) {
      if (!backward_[i]) continue;
      for (const ValueId id : training_.ops[i].operands) need(need, id);
    }
    for (const ProgramOutput& output : training_.outputs) need(need, output.value);
  }

  static Piece finish(Builder& builder, const std::string& name, const std::string& variant) {
    Piece piece{.name = name, .variant = variant, .program = builder.take()};
    remove_unused_inputs(piece.program);
    remove_dead_ops(piece.program);
    return piece;
  }

  const Program& training_;
  std::vector<bool> backward_;
  std::map<ValueId, std::string> crossing_;
};

}  // namespace

bool is_remade(const Op& op) { return op.def->view || op.operands.empty(); }

std::string crossing_name(const Program& program, ValueId id) {
  const Op& op = program.ops[static_cast<size_t>(program.values[static_cast<size_t>(id)].producer)];
  return program.scopes[static_cast<size_t>(op.scope)] + "/" + std::string(op.def->name) + "#" + std::to_string(id);
}

void declare_inputs(const Program& program, Builder& builder, Copier& copier) {
  for (const ProgramInput& input : program.inputs) {
    const Type& type = program.type(input.value);
    switch (input.kind) {
      case InputKind::kParameter:
        copier.map(input.value, builder.parameter(input.name, type));
        break;
      case InputKind::kInput:
        copier.map(input.value, builder.input(input.name, type));
        break;
      case InputKind::kState:
        copier.map(input.value, builder.state(input.name, type));
        break;
      case InputKind::kCarried:
        throw InternalError("what is cut into pieces has no carried values yet: " + input.name);
    }
  }
}

void remake(const Program& program, Copier& copier, ValueId id) {
  if (copier.has(id)) return;
  const Op& op = program.ops[static_cast<size_t>(program.values[static_cast<size_t>(id)].producer)];
  MW_CHECK(is_remade(op), program.describe(op), " crosses a boundary but is not carried");
  for (const ValueId operand : op.operands) remake(program, copier, operand);
  copier.copy(op);
}

void sum_up(Builder& b, const ProgramOutput& output, Tensor value, bool first, bool last) {
  const bool gradient = starts_with(output.name, kGradientPrefix);
  if (!gradient && value.dtype() != DType::kF32) {
    throw UserError("result '" + output.name + "' is " + to_string(value.type()) +
                    "; a training step can only return f32 values, which it sums over microbatches");
  }
  const std::string sum_name =
      gradient ? kAccumulatorPrefix + output.name.substr(std::string(kGradientPrefix).size()) : kMetricPrefix + output.name;
  if (!first) value = b.state(sum_name, value.type()) + value;
  if (!last) {
    b.write_state(sum_name, value);
  } else {
    b.output(output.name, value, gradient ? OutputKind::kState : OutputKind::kResult);
  }
}

std::string variant_name(bool first, bool last) { return first && last ? "first_last" : first ? "first" : last ? "last" : "middle"; }

Plan cut(const Program& training, Program update, int microbatches) {
  if (microbatches < 1) throw UserError("microbatches is " + std::to_string(microbatches) + "; expected at least 1");
  const Cutter cutter(training);
  Plan plan;
  plan.pieces.push_back(cutter.forward());
  std::map<std::string, int32_t> variants;
  for (int32_t m = 0; m < microbatches; ++m) {
    const bool first = m == 0, last = m + 1 == microbatches;
    const std::string key = std::string(first ? "f" : "") + (last ? "l" : "");
    if (!variants.count(key)) {
      variants[key] = static_cast<int32_t>(plan.pieces.size());
      plan.pieces.push_back(cutter.backward(first, last));
    }
    plan.order.push_back({.piece = 0, .microbatch = m});
    plan.order.push_back({.piece = variants[key], .microbatch = m});
  }
  plan.order.push_back({.piece = static_cast<int32_t>(plan.pieces.size()), .microbatch = 0});
  plan.pieces.push_back({.name = "update", .variant = "", .program = std::move(update)});
  return plan;
}

Plan cut_single(Program program, const std::string& name) {
  Plan plan;
  plan.pieces.push_back({.name = name, .variant = "", .program = std::move(program)});
  remove_dead_ops(plan.pieces[0].program);
  plan.order.push_back({.piece = 0, .microbatch = 0});
  return plan;
}

}  // namespace mw
