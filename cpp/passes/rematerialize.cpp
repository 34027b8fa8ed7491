#include "passes/rematerialize.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "ir/layer_scope.h"
#include "ops/offload.h"
#include "passes/cut.h"
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

// What becomes of each value of the forward.
class Keeper {
 public:
  // `is_part`: of a model of which other parts may have what the policy names.
  Keeper(const Program& forward, const RematPolicy& policy, bool is_part)
      : forward_(forward), policy_(policy), is_part_(is_part), users_(forward.values.size()) {
    for (size_t i = 0; i < forward.ops.size(); ++i) {
      for (const ValueId id : forward.ops[i].operands) users_[static_cast<size_t>(id)].push_back(static_cast<int32_t>(i));
    }
    std::set<std::string_view> scopes;
    for (const Op& op : forward.ops) scopes.insert(scope_of(op));
    for (const std::string_view scope : scopes) {
      if (scope.ends_with(".mlp.router")) with_router_.insert(layer_of(scope));
    }
    for (const RematName& name : policy.names) add_patterns(name, scopes);
    if (!policy.names.empty() && patterns_.empty() && !is_part)
      throw UserError("remat policy: nothing that " + policy.kind + " names is in this model; expected full, minimal or custom:NAME,NAME");
  }

  RematFate fate(ValueId id) const {
    const int32_t producer = forward_.values[static_cast<size_t>(id)].producer;
    const Op& op = forward_.ops[static_cast<size_t>(producer)];
    if (op.def->view || op.operands.empty()) return RematFate::kRecompute;
    if (is_choice(id, op)) return RematFate::kKeep;
    if (enters_another_layer(id, op)) return is_layer_input(id) ? policy_.layer_inputs : RematFate::kKeep;
    const Op& source = reduced_by(op);  // a name means the value after its reduction
    if (is_reduced_later(id)) return RematFate::kRecompute;
    for (const Pattern& pattern : patterns_) {
      if (pattern.means(*this, scope_of(source))) return pattern.fate;
    }
    return source.def->name == "dot" || source.def->name == "grouped_dot" ? policy_.products : RematFate::kRecompute;
  }

 private:
  struct Pattern {
    std::string scopes;
    LayerKind layers;
    RematFate fate;

    bool means(const Keeper& keeper, std::string_view scope) const {
      if (!matches(scopes, scope)) return false;
      return layers == LayerKind::kAny || keeper.with_router_.contains(layer_of(scope)) == (layers == LayerKind::kExperts);
    }
  };

  std::string_view scope_of(const Op& op) const { return forward_.scopes[static_cast<size_t>(op.scope)]; }

  // Names of a policy of the table that this model lacks are passed over; one that the user gave must be there.
  void add_patterns(const RematName& name, const std::set<std::string_view>& scopes) {
    std::vector<Pattern> candidates;
    for (const ActivationName& activation : kActivationNames) {
      if (activation.name == name.name) candidates.push_back({"*." + std::string(activation.part), activation.layers, name.fate});
    }
    if (candidates.empty()) candidates.push_back({name.name, LayerKind::kAny, name.fate});
    bool found = false;
    for (Pattern& pattern : candidates) {
      if (std::none_of(scopes.begin(), scopes.end(), [&](std::string_view scope) { return pattern.means(*this, scope); })) continue;
      found = true;
      patterns_.push_back(std::move(pattern));
    }
    if (found || policy_.kind != "custom" || is_part_) return;
    std::vector<std::string> known(scopes.begin(), scopes.end());
    for (const ActivationName& activation : kActivationNames) known.emplace_back(activation.name);
    throw UserError("remat policy: '" + name.name + "' matches nothing in this model" + did_you_mean(name.name, known) +
                    "; expected a part of a layer (query_proj, context, mlpwi_0, ...) or a pattern over scopes such as layers.*.mlp.gate");
  }

  // Integers that a layer makes say where tokens go: made again they must not come out otherwise, so they are kept.
  bool is_choice(ValueId id, const Op& op) const { return !is_float(forward_.type(id).dtype) && !layer_of(scope_of(op)).empty(); }

  bool enters_another_layer(ValueId id, const Op& op) const {
    const std::string_view home = layer_of(scope_of(op));
    const auto& users = users_[static_cast<size_t>(id)];
    if (home.empty() && users.empty()) return true;
    return std::any_of(users.begin(), users.end(), [&](int32_t user) {
      const Op& reader = forward_.ops[static_cast<size_t>(user)];
      return !reduces(reader) && layer_of(scope_of(reader)) != home;
    });
  }

  // The residual stream in front of a layer, and not a mask or what the head reads.
  bool is_layer_input(ValueId id) const {
    const auto& users = users_[static_cast<size_t>(id)];
    return is_float(forward_.type(id).dtype) && std::any_of(users.begin(), users.end(), [&](int32_t user) {
             return scope_of(forward_.ops[static_cast<size_t>(user)]).ends_with(".input_norm");
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
  bool is_part_;
  std::vector<std::vector<int32_t>> users_;
  std::set<std::string_view> with_router_;  // layers
  std::vector<Pattern> patterns_;
};

// What the backward pieces read of the forward.
struct Kept {
  std::set<ValueId> on_device, on_host;
};

// The forward of one run of layers, and what its carried values are called.
struct Forward {
  const Program& program;
  int32_t chunk;

  std::string name_of(ValueId id) const { return crossing_name(program, id) + (chunk > 0 ? "@" + std::to_string(chunk) : ""); }
  std::string name_on_host(ValueId id) const { return kHostPrefix + name_of(id); }
};

class Rewriter {
 public:
  Rewriter(const Forward& forward, const Keeper& keeper, Kept& kept)
      : names_(forward), forward_(forward.program), keeper_(keeper), kept_(kept) {
    for (const ProgramOutput& output : forward_.outputs) {
      if (output.kind == OutputKind::kCarried) carried_[output.name] = output.value;
    }
  }

  Program backward(const Program& old) {
    Builder builder(old.name);
    Copier copier(old, builder), remade(forward_, builder);
    const auto forward_inputs = inputs_by_name(forward_);
    std::unordered_map<ValueId, ValueId> from_forward;  // carried input of `old` -> value of the forward
    for (const ProgramInput& input : old.inputs) {
      if (const auto made = carried_.find(input.name); input.kind == InputKind::kCarried && made != carried_.end()) {
        from_forward[input.value] = made->second;
        continue;
      }
      // What another stage has sent, or another half of the backward has left, stands there as it is.
      const Type& type = old.type(input.value);
      const Tensor tensor = input.kind == InputKind::kParameter ? builder.parameter(input.name, type)
                            : input.kind == InputKind::kState   ? builder.state(input.name, type)
                            : input.kind == InputKind::kCarried ? builder.carried(input.name, type)
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
      remade.map(id, input.kind == InputKind::kParameter ? builder.parameter(input.name, type)
                     : input.kind == InputKind::kCarried ? builder.carried(input.name, type)
                                                         : builder.input(input.name, type));
      return;
    }
    const Op& op = forward_.ops[static_cast<size_t>(producer)];
    const RematFate fate = keeper_.fate(id);
    if (fate == RematFate::kKeep) {
      kept_.on_device.insert(id);
      remade.map(id, builder.carried(names_.name_of(id), forward_.type(id)));
      return;
    }
    if (fate == RematFate::kOffload) {
      kept_.on_host.insert(id);
      remade.follow(op);
      builder.set_pass("rematerialize");
      remade.map(id, from_host(builder.carried(names_.name_on_host(id), forward_.type(id)), Source()));
      return;
    }
    for (const ValueId operand : op.operands) make(builder, remade, operand);
    remade.follow(op);
    builder.set_pass("rematerialize");
    const std::vector<Tensor> results = builder.append(*op.def, remade.operands(op), op.attributes, Source());
    for (size_t i = 0; i < results.size(); ++i) {
      if (!remade.has(op.results[i])) remade.map(op.results[i], results[i]);
    }
  }

  const Forward& names_;
  const Program& forward_;
  const Keeper& keeper_;
  Kept& kept_;
  std::unordered_map<std::string, ValueId> carried_;
};

// The forward with these values sent to the host as soon as they are made.
Program with_offloads(const Program& old, const Forward& names, const std::set<ValueId>& on_host) {
  Builder builder(old.name);
  Copier copier(old, builder);
  copier.copy_inputs();
  std::vector<ProgramOutput> outputs;
  for (const Op& op : old.ops) {
    copier.copy(op);
    for (const ValueId id : op.results) {
      if (!on_host.contains(id)) continue;
      copier.follow(op);
      builder.set_pass("rematerialize");
      outputs.push_back({names.name_on_host(id), OutputKind::kCarried, to_host(copier[id], Source()).id});
    }
  }
  copier.copy_outputs();
  Program program = builder.take();
  program.outputs.insert(program.outputs.end(), outputs.begin(), outputs.end());
  return program;
}

void rematerialize_chunk(Plan& plan, Piece& forward, const RematPolicy& policy) {
  const Program original = forward.program;
  const Forward names{original, forward.chunk};
  const Keeper keeper(original, policy, !forward.sends.empty() || !forward.receives.empty());
  Kept kept;
  for (Piece& piece : plan.pieces) {
    if (piece.name.starts_with("backward") && piece.chunk == forward.chunk)
      piece.program = Rewriter(names, keeper, kept).backward(piece.program);
  }
  std::erase_if(forward.program.outputs, [&](const ProgramOutput& output) {
    const auto leaves = [&](const Mail& mail) { return mail.name == output.name; };
    return output.kind == OutputKind::kCarried && std::none_of(forward.sends.begin(), forward.sends.end(), leaves);
  });
  for (const ValueId id : kept.on_device) forward.program.outputs.push_back({names.name_of(id), OutputKind::kCarried, id});
  if (!kept.on_host.empty()) forward.program = with_offloads(forward.program, names, kept.on_host);
  remove_dead_ops(forward.program);
}

}  // namespace

Plan rematerialize(Plan plan, const RematPolicy& policy) {
  MW_CHECK(policy.kind != "auto", "a policy that nobody has chosen yet");
  if (policy.kind == "none") return plan;
  for (Piece& forward : plan.pieces) {
    if (forward.name == "forward") rematerialize_chunk(plan, forward, policy);
  }
  return plan;
}

}  // namespace mw
