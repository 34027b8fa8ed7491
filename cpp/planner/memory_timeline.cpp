#include "planner/memory_timeline.h"

#include <algorithm>

#include "passes/explain.h"

namespace mw {
namespace {

// Walks the ops of a placed piece and knows which values are alive.
class Liveness {
 public:
  Liveness(const Piece& piece, const PieceTime& time)
      : piece_(piece), program_(piece.program), time_(time), root_(program_.values.size()), last_use_(program_.values.size(), -1) {
    for (size_t i = 0; i < root_.size(); ++i) root_[i] = static_cast<ValueId>(i);
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      if (op.def->view) root_[at(op.results[0])] = root_[at(op.operands[0])];
      for (const ValueId id : op.operands) last_use_[at(root_[at(id)])] = std::max(last_use_[at(root_[at(id)])], held_by(i));
      for (const ValueId id : op.results) {
        if (piece.in_flight(i)) last_use_[at(id)] = held_by(i);
      }
    }
    // Where values lie that pieces leave for one another; a field of the batch lies there too, but stays. What this piece leaves, it holds
    // to its end.
    among_carried_.resize(program_.values.size());
    const auto end = static_cast<int32_t>(program_.ops.size());
    for (const ProgramInput& input : program_.inputs)
      remember(input.value, input.kind == InputKind::kCarried, input.kind == InputKind::kState);
    for (const ProgramOutput& output : program_.outputs) {
      remember(output.value, output.kind == OutputKind::kCarried, output.kind == OutputKind::kState);
      if (among_carried_[at(output.value)]) last_use_[at(root_[at(output.value)])] = end;
    }
    ends_.resize(program_.ops.size() + 1);
    for (size_t id = 0; id < last_use_.size(); ++id) {
      if (last_use_[id] >= 0) ends_[static_cast<size_t>(last_use_[id])].push_back(static_cast<ValueId>(id));
    }
  }

  PieceMemory run() {
    PieceMemory memory{.piece = piece_title(piece_), .samples = {}, .fullest = {}};
    for (const ProgramInput& input : program_.inputs) add(input.value, 1);
    int64_t most = -1;
    size_t fullest = 0;
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      const ValueId overwritten = overwritten_by(op, i);
      if (overwritten != kNoValue) scratch_ -= program_.type(overwritten).bytes();
      for (const ValueId id : op.results) {
        if (!op.def->view) add(id, 1);
      }
      sample(memory, op, time_.op_start[i]);
      if (scratch_ > most) most = scratch_, fullest = i;
      for (const ValueId id : op.results) {
        if (last_use_[at(id)] < 0 && !op.def->view) add(id, -1);
      }
      for (const ValueId id : ends_[i]) {
        if (id != overwritten) add(id, -1);
      }
    }
    if (!program_.ops.empty()) {
      memory.fullest_seconds = time_.op_start[fullest];
      memory.fullest = alive_at(fullest);
    }
    return memory;
  }

 private:
  static size_t at(ValueId id) { return static_cast<size_t>(id); }

  // A collective in flight holds what it reads and makes until it is finished.
  int32_t held_by(size_t index) const { return piece_.in_flight(index) ? piece_.finish[index] - 1 : static_cast<int32_t>(index); }

  // The operand that dies here and whose bytes the result takes over.
  ValueId overwritten_by(const Op& op, size_t index) const {
    if (!op.def->elementwise || op.results.size() != 1) return kNoValue;
    const Placement& place = piece_.places[at(op.results[0])];
    for (const ValueId operand : op.operands) {
      const ValueId id = root_[at(operand)];
      const Placement& other = piece_.places[at(id)];
      if (place.region == Region::kScratch && other.region == Region::kScratch && place.offset == other.offset &&
          last_use_[at(id)] == static_cast<int32_t>(index))
        return id;
    }
    return kNoValue;
  }

  void remember(ValueId id, bool carried, bool state) {
    if (piece_.places[at(id)].region != Region::kCarried) return;
    if (carried) among_carried_[at(id)] = &carried_;
    if (state) among_carried_[at(id)] = &gradients_;
  }

  // A value that begins (1) or ends (-1) to be alive.
  void add(ValueId id, int64_t sign) {
    const bool in_scratch = piece_.places[at(id)].region == Region::kScratch;
    if (int64_t* sum = in_scratch ? &scratch_ : among_carried_[at(id)]) *sum += sign * program_.type(id).bytes();
  }

  void sample(PieceMemory& memory, const Op& op, double seconds) const {
    std::string scope = span_of_scope(program_.scopes[static_cast<size_t>(op.scope)]);
    if (memory.samples.empty() || memory.samples.back().scope != scope)
      memory.samples.push_back({.scope = std::move(scope), .seconds = seconds});
    MemorySample& last = memory.samples.back();
    last.scratch = std::max(last.scratch, scratch_);
    last.carried = std::max(last.carried, carried_);
    last.gradients = std::max(last.gradients, gradients_);
  }

  std::vector<ScopeBytes> alive_at(size_t index) const {
    std::map<std::string, int64_t> bytes;
    for (size_t id = 0; id < program_.values.size(); ++id) {
      const int32_t producer = program_.values[id].producer;
      const bool made = producer >= 0 && static_cast<size_t>(producer) <= index && !program_.ops[static_cast<size_t>(producer)].def->view;
      const bool alive = made && (last_use_[id] >= static_cast<int32_t>(index) || static_cast<size_t>(producer) == index);
      if (!alive || piece_.places[id].region != Region::kScratch) continue;
      const Op& op = program_.ops[static_cast<size_t>(producer)];
      bytes[scope_of_any_layer(program_.scopes[static_cast<size_t>(op.scope)])] += program_.type(static_cast<ValueId>(id)).bytes();
    }
    return sorted_by_bytes(bytes);
  }

  const Piece& piece_;
  const Program& program_;
  const PieceTime& time_;
  std::vector<ValueId> root_;               // the value whose bytes a view shows
  std::vector<int32_t> last_use_;           // by root
  std::vector<std::vector<ValueId>> ends_;  // by op: whose last use it is
  std::vector<int64_t*> among_carried_;     // by value: the sum it counts in; null: not carried
  int64_t scratch_ = 0, carried_ = 0, gradients_ = 0;
};

}  // namespace

PieceMemory memory_over_time(const Piece& piece, const PieceTime& time) { return Liveness(piece, time).run(); }

std::vector<ScopeBytes> sorted_by_bytes(const std::map<std::string, int64_t>& bytes) {
  std::vector<ScopeBytes> list;
  for (const auto& [scope, total] : bytes) list.push_back({scope, total});
  std::stable_sort(list.begin(), list.end(), [](const ScopeBytes& a, const ScopeBytes& b) { return a.bytes > b.bytes; });
  return list;
}

}  // namespace mw
