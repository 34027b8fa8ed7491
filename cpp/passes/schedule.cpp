#include "passes/schedule.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <string_view>

#include "base/error.h"
#include "ir/layer_scope.h"

namespace mw {
namespace {

// Those that an executor can start and finish apart. The exchanges of expert rows decide their sizes as they go.
constexpr std::array<std::string_view, 4> kStartable{"all_gather", "reduce_scatter", "all_reduce", "ring_shift"};

bool is_startable(const Op& op) { return std::find(kStartable.begin(), kStartable.end(), op.def->name) != kStartable.end(); }

// "layers.3" of "layers.3.mlp.gate"; elsewhere the scope itself.
std::string_view layer_of(std::string_view scope) {
  const auto layer = parse_layer_scope(scope);
  if (!layer || layer->part.empty()) return scope;
  return scope.substr(0, scope.size() - layer->part.size() - 1);
}

size_t at(int64_t index) { return static_cast<size_t>(index); }

class PieceScheduler {
 public:
  PieceScheduler(Piece& piece, int64_t most_bytes, const BackendFacts& backend)
      : piece_(piece), program_(piece.program), count_(std::ssize(program_.ops)), backend_(backend) {
    read_values();
    classify();
    share_out(most_bytes);
  }

  void run() {
    for (int32_t i = 0; i < count_; ++i) {
      start_parameters();
      visit(i);
    }
    for (int32_t i = 0; i < count_; ++i) {
      if (state_[at(i)] == State::kInFlight && !deferrable_[at(i)]) finish(i);
    }
    while (!behind_.empty()) finish(behind_.front());
    apply();
  }

 private:
  enum Budget : uint8_t { kParameters, kMade };
  enum class State : uint8_t { kNotYet, kInFlight, kDone };

  // What each op waits for: the makers of the values that its operands show.
  void read_values() {
    std::vector<int32_t> maker(program_.values.size(), -1);
    root_input_.assign(program_.values.size(), kNoValue);
    makers_.resize(at(count_));
    inputs_.resize(at(count_));
    readers_.resize(at(count_));
    for (const ProgramInput& input : program_.inputs) root_input_[at(input.value)] = input.value;
    for (int32_t i = 0; i < count_; ++i) {
      const Op& op = program_.ops[at(i)];
      for (const ValueId id : op.operands) {
        if (maker[at(id)] < 0) {
          inputs_[at(i)].push_back(root_input_[at(id)]);
          continue;
        }
        makers_[at(i)].push_back(maker[at(id)]);
        readers_[at(maker[at(id)])].push_back(i);
      }
      for (const ValueId id : op.results) {
        maker[at(id)] = op.def->view ? maker[at(op.operands[0])] : i;
        if (op.def->view) root_input_[at(id)] = root_input_[at(op.operands[0])];
      }
    }
    writer_.assign(program_.values.size(), -1);
    const auto inputs = inputs_by_name(program_);
    for (const ProgramOutput& output : program_.outputs) {
      const auto input = inputs.find(output.name);
      if (output.kind != OutputKind::kState || input == inputs.end() || input->second->value == output.value) continue;
      writer_[at(input->second->value)] = program_.values[at(output.value)].producer;
    }
    for (const ProgramInput& input : program_.inputs) {
      if (input.kind == InputKind::kParameter && writer_[at(input.value)] < 0) parameter_.insert_or_assign(input.value, true);
    }
  }

  void classify() {
    startable_.resize(at(count_));
    of_parameter_.resize(at(count_));
    std::vector<bool> from_collective(at(count_)), deferrable(at(count_));
    for (int32_t i = 0; i < count_; ++i) {
      const Op& op = program_.ops[at(i)];
      // A state that the piece writes may not be read once that has happened: such a transfer ends at once.
      const bool reads_written =
          std::any_of(inputs_[at(i)].begin(), inputs_[at(i)].end(), [&](ValueId id) { return writer_[at(id)] >= 0; });
      startable_[at(i)] = is_startable(op) && !reads_written;
      of_parameter_[at(i)] = startable_[at(i)] && makers_[at(i)].empty() && parameter_.contains(inputs_[at(i)].front());
      if (of_parameter_[at(i)]) ahead_.push_back(i);
      const bool own_states = std::all_of(inputs_[at(i)].begin(), inputs_[at(i)].end(),
                                          [&](ValueId id) { return writer_[at(id)] < 0 || writer_[at(id)] == i; });
      from_collective[at(i)] = !op.def->collective && own_states && !makers_[at(i)].empty() &&
                               std::all_of(makers_[at(i)].begin(), makers_[at(i)].end(), [&](int32_t m) {
                                 return (startable_[at(m)] && !of_parameter_[at(m)]) || from_collective[at(m)];
                               });
    }
    for (int32_t i = count_; i-- > 0;) {
      deferrable[at(i)] = ((startable_[at(i)] && !of_parameter_[at(i)]) || from_collective[at(i)]) &&
                          std::all_of(readers_[at(i)].begin(), readers_[at(i)].end(), [&](int32_t r) { return deferrable[at(r)]; });
    }
    deferrable_ = std::move(deferrable);
  }

  void share_out(int64_t most_bytes) {
    bytes_.assign(at(count_), 0);
    std::array<std::map<std::string_view, int64_t>, 2> layers;
    for (int32_t i = 0; i < count_; ++i) {
      if (!startable_[at(i)]) continue;
      const Op& op = program_.ops[at(i)];
      bytes_[at(i)] = bytes_in_flight(program_, op, backend_);
      layers[budget_of(i)][layer_of(program_.scopes[at(op.scope)])] += bytes_[at(i)];
    }
    const int64_t sharers = std::max<int64_t>(1, (layers[kParameters].empty() ? 0 : 1) + (layers[kMade].empty() ? 0 : 1));
    for (const Budget budget : {kParameters, kMade}) {
      left_[budget] = most_bytes / sharers;
      if (most_bytes != kOneLayer) continue;
      left_[budget] = 0;
      for (const auto& [layer, bytes] : layers[budget]) left_[budget] = std::max(left_[budget], bytes);
    }
  }

  Budget budget_of(int32_t i) const { return of_parameter_[at(i)] ? kParameters : kMade; }

  void start_parameters() {
    while (!ahead_.empty() && bytes_[at(ahead_.front())] <= left_[kParameters] && left_[kParameters] > 0) {
      const int32_t i = ahead_.front();
      ahead_.pop_front();
      emit(i);
    }
  }

  void visit(int32_t i) {
    if (state_[at(i)] != State::kNotYet) return;
    if (program_.ops[at(i)].def->view) {
      const bool there = makers_[at(i)].empty() || state_[at(makers_[at(i)].front())] != State::kNotYet;
      return there ? emit(i) : wait_behind(i);
    }
    if (deferrable_[at(i)] && !is_ready(i)) return wait_behind(i);
    for (const int32_t maker : makers_[at(i)]) require(maker);
    if (of_parameter_[at(i)]) {
      MW_CHECK(!ahead_.empty() && ahead_.front() == i, "gathers of parameters start in their order");
      ahead_.pop_front();
    }
    emit(i);
  }

  bool is_ready(int32_t i) const {
    return std::all_of(makers_[at(i)].begin(), makers_[at(i)].end(), [&](int32_t m) { return state_[at(m)] == State::kDone; });
  }

  // Emitted as soon as what it reads is there.
  void wait_behind(int32_t i) {
    for (const int32_t maker : makers_[at(i)]) {
      if (state_[at(maker)] == State::kDone) continue;
      waiters_[at(maker)].push_back(i);
      return;
    }
    throw InternalError("nothing holds up " + program_.describe(program_.ops[at(i)]));
  }

  void require(int32_t i) {
    if (state_[at(i)] == State::kInFlight) finish(i);
    MW_CHECK(state_[at(i)] == State::kDone, program_.describe(program_.ops[at(i)]), " was put off though it is needed");
  }

  void emit(int32_t i) {
    if (startable_[at(i)]) return start(i);
    order_.push_back(i);
    done(i);
  }

  void start(int32_t i) {
    const Budget budget = budget_of(i);
    const int64_t whole = left_[budget] + in_flight_[budget];
    const bool goes_beside = bytes_[at(i)] <= whole && whole > 0 && (budget == kParameters || is_read_later(i));
    if (budget == kMade && goes_beside) {
      while (bytes_[at(i)] > left_[kMade] && !behind_.empty()) finish(behind_.front());
    }
    started_at_[at(i)] = static_cast<int32_t>(order_.size());
    order_.push_back(i);
    if (!goes_beside || bytes_[at(i)] > left_[budget]) return done(i);
    left_[budget] -= bytes_[at(i)];
    in_flight_[budget] += bytes_[at(i)];
    state_[at(i)] = State::kInFlight;
    if (deferrable_[at(i)]) behind_.push_back(i);
  }

  // Whether something computes before the result is needed.
  bool is_read_later(int32_t i) const {
    if (deferrable_[at(i)]) return true;
    int32_t next = i + 1;
    while (next < count_ && program_.ops[at(next)].def->view) ++next;
    return std::find(readers_[at(i)].begin(), readers_[at(i)].end(), next) == readers_[at(i)].end();
  }

  void finish(int32_t i) {
    const Budget budget = budget_of(i);
    left_[budget] += bytes_[at(i)];
    in_flight_[budget] -= bytes_[at(i)];
    if (deferrable_[at(i)]) behind_.erase(std::find(behind_.begin(), behind_.end(), i));
    const auto here = static_cast<int32_t>(order_.size());
    if (here > started_at_[at(i)] + 1) finish_[at(i)] = here;
    done(i);
  }

  void done(int32_t i) {
    state_[at(i)] = State::kDone;
    std::vector<int32_t> waiting = std::move(waiters_[at(i)]);
    waiters_[at(i)].clear();
    for (const int32_t waiter : waiting) is_ready(waiter) ? emit(waiter) : wait_behind(waiter);
  }

  void apply() {
    MW_CHECK(std::ssize(order_) == count_, "schedule lost ops of ", program_.name);
    std::vector<Op> ops;
    ops.reserve(order_.size());
    piece_.finish.assign(order_.size(), -1);
    for (const int32_t i : order_) {
      for (const ValueId id : program_.ops[at(i)].results) program_.values[at(id)].producer = static_cast<int32_t>(ops.size());
      piece_.finish[ops.size()] = finish_[at(i)];
      ops.push_back(std::move(program_.ops[at(i)]));
    }
    program_.ops = std::move(ops);
  }

  Piece& piece_;
  Program& program_;
  const int32_t count_;
  const BackendFacts& backend_;
  std::vector<ValueId> root_input_;            // by value: the input whose bytes it shows
  std::vector<int32_t> writer_;                // by value: the op that writes the next version over this state
  std::map<ValueId, bool> parameter_;          // inputs that stay as they are
  std::vector<std::vector<int32_t>> makers_;   // by op: what made its operands, views seen through
  std::vector<std::vector<ValueId>> inputs_;   // by op: inputs that it reads
  std::vector<std::vector<int32_t>> readers_;  // by op
  std::vector<bool> startable_, of_parameter_;
  std::vector<bool> deferrable_;  // by op: nothing but a later end depends on it
  std::vector<int64_t> bytes_;    // by op, in flight
  std::array<int64_t, 2> left_{}, in_flight_{};
  std::deque<int32_t> ahead_;   // gathers of parameters that have not started
  std::deque<int32_t> behind_;  // reductions in flight, oldest first
  std::vector<State> state_ = std::vector<State>(at(count_));
  std::vector<std::vector<int32_t>> waiters_ = std::vector<std::vector<int32_t>>(at(count_));
  std::vector<int32_t> started_at_ = std::vector<int32_t>(at(count_), -1), finish_ = std::vector<int32_t>(at(count_), -1);
  std::vector<int32_t> order_;
};

}  // namespace

int64_t bytes_in_flight(const Program& program, const Op& op, const BackendFacts& backend) {
  int64_t bytes = backend.workspace_bytes ? padded(backend.workspace_bytes(program, op)) : 0;
  for (const ValueId id : op.operands) {
    if (program.values[at(id)].producer >= 0) bytes += padded(program.type(id).bytes());
  }
  for (const ValueId id : op.results) bytes += padded(program.type(id).bytes());
  return bytes;
}

Plan schedule(Plan plan, int64_t most_bytes, const BackendFacts& backend) {
  MW_CHECK(most_bytes >= kOneLayer, "a bound of ", most_bytes, " bytes in flight");
  for (Piece& piece : plan.pieces) PieceScheduler(piece, most_bytes, backend).run();
  return plan;
}

}  // namespace mw
