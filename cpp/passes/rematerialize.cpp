#include "passes/rematerialize.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "ir/layer_scope.h"
#include "passes/edit.h"
#include "passes/simplify.h"

namespace mw {
namespace {

bool matches(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern.front() == '*') return matches(pattern.substr(1), text) || (!text.empty() && matches(pattern, text.substr(1)));
  return !text.empty() && pattern.front() == text.front() && matches(pattern.substr(1), text.substr(1));
}

// "layers.12.attention.query" -> "layers.12"; "" outside the layers.
std::string_view layer_of(std::string_view scope) {
  if (scope.substr(0, 7) != "layers.") return "";
  return scope.substr(0, std::min(scope.find('.', 7), scope.size()));
}

bool reduces(const Op& op) { return op.def->name == "reduce_scatter" || op.def->name == "all_reduce"; }

// Which values of the forward are kept.
class Keeper {
 public:
  Keeper(const Program& forward, const RematPolicy& policy) : forward_(forward), policy_(policy), users_(forward.values.size()) {
    for (size_t i = 0; i < forward.ops.size(); ++i) {
      for (const ValueId id : forward.ops[i].operands) users_[static_cast<size_t>(id)].push_back(static_cast<int32_t>(i));
    }
    for (const std::string& name : policy.names) patterns_.push_back(pattern_of(name));
  }

  bool keeps(ValueId id) const {
    if (policy_.kind == "none") return true;
    const int32_t producer = forward_.values[static_cast<size_t>(id)].producer;
    const Op& op = forward_.ops[static_cast<size_t>(producer)];
    if (op.def->view || op.operands.empty()) return false;
    if (enters_another_layer(id, op) || is_choice(id, op)) return true;
    const Op& source = reduced_by(op);  // a name means the value after its reduction
    if (is_reduced_later(id)) return false;
    if (policy_.kind == "minimal") return source.def->name == "dot" || source.def->name == "grouped_dot";
    const std::string& scope = forward_.scopes[static_cast<size_t>(source.scope)];
    return std::any_of(patterns_.begin(), patterns_.end(), [&](const std::string& pattern) { return matches(pattern, scope); });
  }

 private:
  std::string pattern_of(const std::string& name) const {
    std::vector<std::string> known;
    std::string pattern = name;
    for (const ActivationName& activation : kActivationNames) {
      known.emplace_back(activation.name);
      if (activation.name != name) continue;
      if (activation.is_operand) return "";  // enters a layer: always kept
      pattern = "*." + std::string(activation.part);
    }
    const bool found = std::any_of(forward_.ops.begin(), forward_.ops.end(),
                                   [&](const Op& op) { return matches(pattern, forward_.scopes[static_cast<size_t>(op.scope)]); });
    if (found) return pattern;
    for (const std::string& scope : forward_.scopes) known.push_back(scope);
    throw UserError("remat policy: '" + name + "' matches nothing in this model" + did_you_mean(name, known) +
                    "; expected a part of a layer (query_proj, context, mlpwi_0, ...) or a pattern over scopes such as layers.*.mlp.gate");
  }

  // Integers that a layer makes say where tokens go: made again they must not come out otherwise, so they are kept.
  bool is_choice(ValueId id, const Op& op) const {
    return !is_float(forward_.type(id).dtype) && !layer_of(forward_.scopes[static_cast<size_t>(op.scope)]).empty();
  }

  bool enters_another_layer(ValueId id, const Op& op) const {
    const std::string_view home = layer_of(forward_.scopes[static_cast<size_t>(op.scope)]);
    const auto& users = users_[static_cast<size_t>(id)];
    if (home.empty() && users.empty()) return true;
    return std::any_of(users.begin(), users.end(), [&](int32_t user) {
      const Op& reader = forward_.ops[static_cast<size_t>(user)];
      return !reduces(reader) && layer_of(forward_.scopes[static_cast<size_t>(reader.scope)]) != home;
    });
  }

  bool is_reduced_later(ValueId id) const {
    const auto& users = users_[static_cast<size_t>(id)];
    return !users.empty() &&
           std::all_of(users.begin(), users.end(), [&](int32_t user) { return reduces(forward_.ops[static_cast<size_t>(user)]); });
  }

  const Op& reduced_by(const Op& op) const {
    if (!reduces(op)) return op;
    const int32_t producer = forward_.values[static_cast<size_t>(op.operands[0])].producer;
    return producer < 0 ? op : forward_.ops[static_cast<size_t>(producer)];
  }

  const Program& forward_;
  const RematPolicy& policy_;
  std::vector<std::vector<int32_t>> users_;
  std::vector<std::string> patterns_;
};

class Rewriter {
 public:
  Rewriter(const Program& forward, const Keeper& keeper, std::set<ValueId>& kept) : forward_(forward), keeper_(keeper), kept_(kept) {
    for (const ProgramOutput& output : forward.outputs) {
      if (output.kind == OutputKind::kCarried) carried_[output.name] = output.value;
    }
  }

  static std::string name_of(const Program& forward, ValueId id) {
    const Op& op = forward.ops[static_cast<size_t>(forward.values[static_cast<size_t>(id)].producer)];
    return forward.scopes[static_cast<size_t>(op.scope)] + "/" + std::string(op.def->name) + "#" + std::to_string(id);
  }

  Program backward(const Program& old) {
    Builder builder(old.name);
    Copier copier(old, builder), remade(forward_, builder);
    const auto forward_inputs = inputs_by_name(forward_);
    std::unordered_map<ValueId, ValueId> from_forward;  // carried input of `old` -> value of the forward
    for (const ProgramInput& input : old.inputs) {
      if (input.kind == InputKind::kCarried) {
        from_forward[input.value] = carried_.at(input.name);
        continue;
      }
      const Type& type = old.type(input.value);
      const Tensor tensor = input.kind == InputKind::kParameter ? builder.parameter(input.name, type)
                            : input.kind == InputKind::kState   ? builder.state(input.name, type)
                                                                : builder.input(input.name, type);
      copier.map(input.value, tensor);
      if (const auto same = forward_inputs.find(input.name); same != forward_inputs.end()) remade.map(same->second->value, tensor);
    }
    for (const Op& op : old.ops) {
      for (const ValueId id : op.operands) {
        if (copier.has(id)) continue;
        make(builder, remade, from_forward.at(id));
        copier.map(id, remade[from_forward.at(id)]);
      }
      copier.copy(op);
    }
    for (const ProgramOutput& output : old.outputs) {
      if (!copier.has(output.value)) {
        make(builder, remade, from_forward.at(output.value));
        copier.map(output.value, remade[from_forward.at(output.value)]);
      }
    }
    copier.copy_outputs();
    Program program = builder.take();
    simplify(program);
    return program;
  }

 private:
  // The forward value `id` in the backward: carried when it is kept, else made again from what its op reads.
  void make(Builder& builder, Copier& remade, ValueId id) {
    if (remade.has(id)) return;
    const int32_t producer = forward_.values[static_cast<size_t>(id)].producer;
    if (producer < 0) {
      const ProgramInput& input =
          *std::find_if(forward_.inputs.begin(), forward_.inputs.end(), [&](const ProgramInput& i) { return i.value == id; });
      const Type& type = forward_.type(id);
      remade.map(id, input.kind == InputKind::kParameter ? builder.parameter(input.name, type) : builder.input(input.name, type));
      return;
    }
    if (keeper_.keeps(id)) {
      kept_.insert(id);
      remade.map(id, builder.carried(name_of(forward_, id), forward_.type(id)));
      return;
    }
    const Op& op = forward_.ops[static_cast<size_t>(producer)];
    for (const ValueId operand : op.operands) make(builder, remade, operand);
    remade.follow(op);
    builder.set_pass("rematerialize");
    const std::vector<Tensor> results = builder.append(*op.def, remade.operands(op), op.attributes, Source());
    for (size_t i = 0; i < results.size(); ++i) {
      if (!remade.has(op.results[i])) remade.map(op.results[i], results[i]);
    }
  }

  const Program& forward_;
  const Keeper& keeper_;
  std::set<ValueId>& kept_;
  std::unordered_map<std::string, ValueId> carried_;
};

}  // namespace

RematPolicy parse_remat(const std::string& text) {
  RematPolicy policy{text.substr(0, text.find(':')), {}};
  const std::vector<std::string> kinds{"none", "full", "minimal", "custom"};
  if (std::find(kinds.begin(), kinds.end(), policy.kind) == kinds.end()) {
    throw UserError("unknown remat policy '" + policy.kind + "'" + did_you_mean(policy.kind, kinds) +
                    "; expected none, full, minimal or custom:NAME,NAME");
  }
  if (text.find(':') != std::string::npos) {
    if (policy.kind != "custom") throw UserError("remat policy '" + text + "': only custom takes names");
    for (size_t at = text.find(':') + 1; at <= text.size();) {
      const size_t comma = std::min(text.find(',', at), text.size());
      if (comma > at) policy.names.push_back(text.substr(at, comma - at));
      at = comma + 1;
    }
  }
  if (policy.kind == "custom" && policy.names.empty())
    throw UserError("remat policy custom names nothing; expected for example custom:query_proj,context");
  return policy;
}

Plan rematerialize(Plan plan, const RematPolicy& policy) {
  if (policy.kind == "none") return plan;
  const auto forward = std::find_if(plan.pieces.begin(), plan.pieces.end(), [](const Piece& piece) { return piece.name == "forward"; });
  if (forward == plan.pieces.end()) return plan;
  const Program original = forward->program;
  const Keeper keeper(original, policy);
  std::set<ValueId> kept;
  for (Piece& piece : plan.pieces) {
    if (piece.name == "backward") piece.program = Rewriter(original, keeper, kept).backward(piece.program);
  }
  std::erase_if(forward->program.outputs, [](const ProgramOutput& output) { return output.kind == OutputKind::kCarried; });
  for (const ValueId id : kept) forward->program.outputs.push_back({Rewriter::name_of(original, id), OutputKind::kCarried, id});
  remove_dead_ops(forward->program);
  return plan;
}

}  // namespace mw
