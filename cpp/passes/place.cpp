#include "passes/place.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "ops/offload.h"
#include "ops/shape.h"
#include "passes/arena_plan.h"
#include "passes/differentiate.h"
#include "passes/edit.h"
#include "passes/place_carried.h"

namespace mw {
namespace {

bool starts_with(const std::string& text, std::string_view prefix) { return text.compare(0, prefix.size(), prefix) == 0; }

BufferRole role_of(const std::string& name, InputKind kind) {
  if (kind == InputKind::kParameter) return BufferRole::kParameter;
  if (kind == InputKind::kInput) return BufferRole::kInput;
  if (kind == InputKind::kCarried) return BufferRole::kActivation;
  if (starts_with(name, "accumulator.") || starts_with(name, kGradientPrefix) || starts_with(name, "metric."))
    return BufferRole::kAccumulator;
  return starts_with(name, "cache.") ? BufferRole::kCache : BufferRole::kOptimizerState;
}

// Gradients that one piece of a step leaves for a later one, in a Plan whose pieces run once each: they need not outlive the step, and lie
// among what is carried.
std::set<std::string> passing_gradients(const Plan& plan) {
  std::set<std::string> made, passing;
  if (!runs_once(plan)) return passing;
  for (const RunRow& row : plan.order) {
    const Program& program = plan.pieces[static_cast<size_t>(row.piece)].program;
    for (const ProgramInput& input : program.inputs) {
      if (input.kind == InputKind::kState && made.contains(input.name)) passing.insert(input.name);
    }
    for (const ProgramOutput& output : program.outputs) {
      if (output.kind == OutputKind::kState && starts_with(output.name, kGradientPrefix)) made.insert(output.name);
    }
  }
  return passing;
}

class BufferTable {
 public:
  BufferTable(std::vector<Buffer>& buffers, const std::map<std::string, SharedValue>& shared) : buffers_(buffers), shared_(shared) {}

  int32_t find_or_add(const std::string& name, BufferRole role, const Type& type) {
    const auto [at, added] = index_.emplace(name, static_cast<int32_t>(buffers_.size()));
    if (added) {
      Buffer buffer{
          .name = name, .role = role, .type = type, .global_type = type, .layout = {}, .offset = end_, .bytes = padded(type.bytes())};
      if (const auto known = shared_.find(name); known != shared_.end()) {
        buffer.global_type = known->second.global_type;
        buffer.layout = known->second.layout;
      }
      end_ += buffer.bytes;
      buffers_.push_back(std::move(buffer));
    }
    const Buffer& buffer = buffers_[static_cast<size_t>(at->second)];
    MW_CHECK(buffer.type == type, "pieces disagree about '", name, "': ", to_string(buffer.type), " and ", to_string(type));
    return at->second;
  }
  int64_t bytes() const { return end_; }

 private:
  std::vector<Buffer>& buffers_;
  const std::map<std::string, SharedValue>& shared_;
  std::unordered_map<std::string, int32_t> index_;
  int64_t end_ = 0;
};

struct Tables {
  BufferTable kept, carried, host, results;
  std::set<std::string> passing;  // states that lie in `carried`

  Placement place_state(const std::string& name, BufferRole role, const Type& type) {
    const bool passes = passing.contains(name);
    return {passes ? Region::kCarried : Region::kKept, (passes ? carried : kept).find_or_add(name, role, type), 0};
  }
};

// Whether the op that makes a state's new version may write it over the old one, which it reads.
bool may_overwrite(const Program& program, const Op& op, ValueId result, ValueId old) {
  for (size_t i = 0; i < op.operands.size(); ++i) {
    if (op.operands[i] != old) continue;
    if (op.def->elementwise && program.type(old) == program.type(result)) continue;
    bool named = false;
    for (size_t r = 0; r < op.results.size() && r < op.def->in_place.size(); ++r)
      named |= op.results[r] == result && op.def->in_place[r] == static_cast<int8_t>(i);
    if (!named) return false;
  }
  return true;
}

// Outputs that no op of their own makes (inputs handed on, views, one value under two names) get a copy, and so does a state's new
// version whose op cannot write over the old one.
void give_outputs_their_own_op(Program& program) {
  std::vector<int32_t> copies;
  std::unordered_map<ValueId, int> taken;
  const auto inputs = inputs_by_name(program);
  for (size_t i = 0; i < program.outputs.size(); ++i) {
    const ProgramOutput& output = program.outputs[i];
    const int32_t producer = program.values[static_cast<size_t>(output.value)].producer;
    const auto at = inputs.find(output.name);
    const ProgramInput* input = at == inputs.end() ? nullptr : at->second;
    if (output.kind == OutputKind::kState && input && input->value == output.value) continue;  // unchanged
    if (producer < 0 || program.ops[static_cast<size_t>(producer)].def->view || taken[output.value]++ > 0 ||
        (output.kind == OutputKind::kState && input &&
         !may_overwrite(program, program.ops[static_cast<size_t>(producer)], output.value, input->value)))
      copies.push_back(static_cast<int32_t>(i));
  }
  if (copies.empty()) return;
  Builder builder(std::move(program));
  std::vector<std::pair<int32_t, ValueId>> replaced;
  for (const int32_t i : copies) {
    const ValueId value = builder.program().outputs[static_cast<size_t>(i)].value;
    replaced.emplace_back(i, copy(builder.tensor(value)).id);
  }
  program = builder.take();
  for (const auto& [i, value] : replaced) program.outputs[static_cast<size_t>(i)].value = value;
}

class PiecePlacer {
 public:
  PiecePlacer(Piece& piece, Tables& tables, const BackendFacts& backend)
      : piece_(piece), program_(piece.program), tables_(tables), backend_(backend) {}

  void run() {
    give_outputs_their_own_op(program_);
    piece_.places.assign(program_.values.size(), {});
    piece_.workspace.assign(program_.ops.size(), -1);
    root_.resize(program_.values.size());
    for (size_t i = 0; i < root_.size(); ++i) root_[i] = static_cast<ValueId>(i);
    place_inputs();
    place_outputs();
    piece_.finish.resize(program_.ops.size(), -1);
    find_lifetimes();
    for (size_t i = 0; i < program_.ops.size(); ++i) place_op(i);
    piece_.scratch_bytes = arena_.peak();
  }

 private:
  Placement& place_of(ValueId id) { return piece_.places[static_cast<size_t>(id)]; }
  int64_t bytes_of(ValueId id) const { return padded(program_.type(id).bytes()); }

  Placement place_carried(const std::string& name, const Type& type) {
    const bool on_host = starts_with(name, kHostPrefix);
    BufferTable& table = on_host ? tables_.host : tables_.carried;
    return {on_host ? Region::kHost : Region::kCarried, table.find_or_add(name, BufferRole::kActivation, type), 0};
  }

  void place_inputs() {
    for (const ProgramInput& input : program_.inputs) {
      const Type& type = program_.type(input.value);
      const BufferRole role = role_of(input.name, input.kind);
      // Scalars hold for a whole step; batch fields are staged once per microbatch in flight.
      const bool scalar = input.kind == InputKind::kInput && type.dims.empty();
      if (scalar) {
        place_of(input.value) = {Region::kKept, tables_.kept.find_or_add(input.name, BufferRole::kScalar, type), 0};
      } else if (input.kind == InputKind::kCarried) {
        place_of(input.value) = place_carried(input.name, type);
      } else if (input.kind == InputKind::kInput) {
        place_of(input.value) = {Region::kCarried, tables_.carried.find_or_add(input.name, role, type), 0};
      } else {
        place_of(input.value) = tables_.place_state(input.name, role, type);
      }
    }
  }

  void place_outputs() {
    const auto inputs = inputs_by_name(program_);
    for (const ProgramOutput& output : program_.outputs) {
      const Type& type = program_.type(output.value);
      switch (output.kind) {
        case OutputKind::kResult:
          place_of(output.value) = {Region::kResult, tables_.results.find_or_add(output.name, BufferRole::kResult, type), 0};
          break;
        case OutputKind::kCarried:
          place_of(output.value) = place_carried(output.name, type);
          break;
        case OutputKind::kState: {
          const auto at = inputs.find(output.name);
          const ProgramInput* input = at == inputs.end() ? nullptr : at->second;
          if (input && input->value == output.value) break;
          place_of(output.value) = tables_.place_state(output.name, role_of(output.name, input ? input->kind : InputKind::kState), type);
          break;
        }
      }
    }
  }

  void find_lifetimes() {
    held_until_.assign(program_.values.size(), -1);
    last_transfer_.assign(program_.values.size(), -1);
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      if (op.def->view) root_[static_cast<size_t>(op.results[0])] = root_[static_cast<size_t>(op.operands[0])];
      for (const ValueId id : op.operands) {
        const ValueId root = root_[static_cast<size_t>(id)];
        hold(root, held_by(i));
        int32_t& last = last_transfer_[static_cast<size_t>(root)];
        if (piece_.in_flight(i)) last = std::max(last, piece_.finish[i]);
      }
      for (const ValueId id : op.results) {
        if (!op.def->view) hold(id, held_by(i));
      }
    }
    freed_after_.resize(program_.ops.size());
    for (size_t id = 0; id < held_until_.size(); ++id) {
      if (held_until_[id] >= 0) freed_after_[static_cast<size_t>(held_until_[id])].push_back(static_cast<ValueId>(id));
    }
  }

  // The op after which what op `index` reads, makes and works in is free: itself, or the one in front of which it is finished.
  int32_t held_by(size_t index) const { return piece_.in_flight(index) ? piece_.finish[index] - 1 : static_cast<int32_t>(index); }
  void hold(ValueId root, int32_t until) {
    held_until_[static_cast<size_t>(root)] = std::max(held_until_[static_cast<size_t>(root)], until);
  }

  // The operand whose scratch bytes the single result of an elementwise op may take over.
  ValueId operand_to_overwrite(const Op& op, size_t index) const {
    if (!op.def->elementwise || op.results.size() != 1) return kNoValue;
    const Type& result = program_.type(op.results[0]);
    for (const ValueId id : op.operands) {
      const ValueId root = root_[static_cast<size_t>(id)];
      const bool dies = held_until_[static_cast<size_t>(root)] == static_cast<int32_t>(index);
      const bool being_sent = last_transfer_[static_cast<size_t>(root)] > static_cast<int32_t>(index);
      if (dies && !being_sent && piece_.places[static_cast<size_t>(root)].region == Region::kScratch && program_.type(id) == result &&
          bytes_of(root) == bytes_of(op.results[0]))
        return root;
    }
    return kNoValue;
  }

  void place_op(size_t index) {
    const Op& op = program_.ops[index];
    if (op.def->view) {
      place_of(op.results[0]) = place_of(op.operands[0]);
      return free_after(index, kNoValue);
    }
    ValueId overwritten = kNoValue;
    for (const ValueId id : op.results) {
      if (place_of(id).region != Region::kNone) continue;
      overwritten = operand_to_overwrite(op, index);
      place_of(id) = {Region::kScratch, -1, overwritten == kNoValue ? arena_.take(bytes_of(id)) : place_of(overwritten).offset};
    }
    if (backend_.workspace_bytes) {
      const int64_t bytes = padded(backend_.workspace_bytes(program_, op));
      if (bytes > 0) {
        piece_.workspace[index] = arena_.take(bytes);
        workspaces_[held_by(index)].emplace_back(piece_.workspace[index], bytes);
      }
    }
    free_after(index, overwritten);
  }

  void free_after(size_t index, ValueId overwritten) {
    if (const auto ended = workspaces_.find(static_cast<int32_t>(index)); ended != workspaces_.end()) {
      for (const auto& [offset, bytes] : ended->second) arena_.give_back(offset, bytes);
      workspaces_.erase(ended);
    }
    for (const ValueId id : freed_after_[index]) {
      if (id != overwritten && place_of(id).region == Region::kScratch) arena_.give_back(place_of(id).offset, bytes_of(id));
    }
  }

  Piece& piece_;
  Program& program_;
  Tables& tables_;
  const BackendFacts& backend_;
  ArenaPlan arena_;
  std::vector<ValueId> root_;                      // the value whose bytes a view shows
  std::vector<int32_t> held_until_;                // by root: the op after which its bytes are free
  std::vector<int32_t> last_transfer_;             // by root: in front of which op the last transfer that reads it is finished
  std::vector<std::vector<ValueId>> freed_after_;  // by op: roots
  std::map<int32_t, std::vector<std::pair<int64_t, int64_t>>> workspaces_;  // offset and bytes, by the op after which they are free
};

}  // namespace

Plan place(Plan plan, const BackendFacts& backend) {
  plan.kept.clear();
  plan.carried.clear();
  plan.host.clear();
  plan.results.clear();
  Tables tables{{plan.kept, plan.shared},
                {plan.carried, plan.shared},
                {plan.host, plan.shared},
                {plan.results, plan.shared},
                passing_gradients(plan)};
  plan.scratch_bytes = 0;
  for (Piece& piece : plan.pieces) {
    PiecePlacer(piece, tables, backend).run();
    plan.scratch_bytes = std::max(plan.scratch_bytes, piece.scratch_bytes);
  }
  plan.kept_bytes = tables.kept.bytes();
  plan.carried_bytes = place_carried(plan, Region::kCarried, plan.carried);
  plan.host_bytes = place_carried(plan, Region::kHost, plan.host);
  plan.result_bytes = tables.results.bytes();
  return plan;
}

}  // namespace mw
