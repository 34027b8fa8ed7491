#include "planner/step_time.h"

#include <algorithm>

#include "ir/layer_scope.h"
#include "passes/explain.h"

namespace mw {
namespace {

// Plays one piece back.
class Playback {
 public:
  Playback(const Piece& piece, const CostModel& model, const ScopeFilter& counts)
      : piece_(piece),
        program_(piece.program),
        model_(model),
        counts_(counts),
        ready_(program_.values.size(), 0),
        from_(program_.values.size(), -1),
        used_(program_.values.size(), false),
        link_free_(model.hardware().network.size(), 0) {
    for (size_t i = 0; i < program_.ops.size(); ++i) scheduled_ = scheduled_ || piece.in_flight(i);
    time_.piece = piece_title(piece);
    time_.op_start.assign(program_.ops.size(), 0);
    for (const Op& op : program_.ops) {
      for (const ValueId id : op.operands) used_[static_cast<size_t>(id)] = true;
    }
  }

  PieceTime run() {
    for (size_t i = 0; i < program_.ops.size(); ++i) play(i);
    end_flights(program_.ops.size());
    close_span();
    for (const Waiting& op : waiting_) wait_for(op.ready, op.from), compute(op.index, op.time);
    for (size_t level = 0; level < link_free_.size(); ++level) wait_for(link_free_[level], last_on_link_[level]);
    time_.seconds = now_;
    time_.exposed_seconds = std::max(0.0, now_ - time_.flops_seconds - time_.bytes_seconds);
    return std::move(time_);
  }

 private:
  struct Waiting {
    size_t index;
    double ready;
    int32_t from;
    ComputeTime time;
  };

  void play(size_t index) {
    const Op& op = program_.ops[index];
    end_flights(index);
    enter_span(op);
    double ready = 0;
    int32_t from = -1;
    for (const ValueId id : op.operands) {
      const auto at = static_cast<size_t>(id);
      if (ready_[at] > ready) ready = ready_[at], from = from_[at];
    }
    time_.op_start[index] = now_;
    if (counts_ && !counts_(scope(op))) return finish(op, ready, from);
    if (communicates(op)) return transfer(index, ready);
    const ComputeTime time = model_.compute(program_, op);
    if (time.seconds == 0) return finish(op, ready, from);
    run_waiting();
    // What nobody in this piece reads, such as a gradient that is added up, need not hold up what follows.
    const bool read = std::any_of(op.results.begin(), op.results.end(), [&](ValueId id) { return used_[static_cast<size_t>(id)]; });
    if (!read && ready > now_) {
      waiting_.push_back({index, ready, from, time});
      return;
    }
    wait_for(ready, from);
    compute(index, time);
    finish(op, now_, -1);
  }

  void transfer(size_t index, double ready) {
    const Op& op = program_.ops[index];
    const std::string axes = axes_text(op);
    const bool beside = model_.settings().overlap && (!scheduled_ || piece_.in_flight(index));
    const double end = occupy(axes, model_.transfer(program_, op), ready, beside);
    const auto from = static_cast<int32_t>(std::find(axes_.begin(), axes_.end(), axes) - axes_.begin());
    const bool parameter = program_.values[static_cast<size_t>(op.operands[0])].producer < 0 && op.def->name == "all_gather";
    if (parameter && !scheduled_) span_gathered_ += program_.type(op.results[0]).bytes();
    if (piece_.in_flight(index)) flights_[static_cast<size_t>(piece_.finish[index])].emplace_back(end, from);
    finish(op, end, from);
  }

  // The Plan waits for what it has in flight where it says so, even if nobody reads it yet.
  void end_flights(size_t index) {
    const auto due = flights_.find(index);
    if (due == flights_.end()) return;
    for (const auto& [end, from] : due->second) wait_for(end, from);
    flights_.erase(due);
  }

  // The end of a transfer whose operand is there at `ready`.
  double occupy(const std::string& axes, const TransferTime& time, double ready, bool beside) {
    const auto at = std::find(axes_.begin(), axes_.end(), axes);
    const auto from = static_cast<int32_t>(at - axes_.begin());
    if (at == axes_.end()) axes_.push_back(axes);
    time_.transfer_seconds += time.seconds;
    span_transfer_ += time.seconds;
    const auto level = static_cast<size_t>(time.level);
    link_free_[level] = std::max({ready, link_free_[level], beside && !scheduled_ ? span_before_ : now_}) + time.seconds;
    last_on_link_[level] = from;
    note_transfer(axes, link_free_[level] - time.seconds, link_free_[level]);
    if (!beside) wait_for(link_free_[level], from);
    return link_free_[level];
  }

  void note_transfer(const std::string& axes, double start, double end) {
    std::vector<LinkSpan>& all = time_.transfers;
    const auto last = std::find_if(all.rbegin(), all.rend(), [&](const LinkSpan& span) { return span.axes == axes; });
    if (last != all.rend() && start <= last->end && start >= last->start) {
      last->end = std::max(last->end, end);
    } else if (end > start) {
      all.push_back({axes, start, end});
    }
  }

  void finish(const Op& op, double ready, int32_t from) {
    for (const ValueId id : op.results) {
      ready_[static_cast<size_t>(id)] = ready;
      from_[static_cast<size_t>(id)] = from;
    }
  }

  void compute(size_t index, const ComputeTime& time) {
    time_.op_start[index] = now_;
    now_ += time.seconds;
    (time.by_flops ? time_.flops_seconds : time_.bytes_seconds) += time.seconds;
    if (time.of_weights) time_.weight_seconds += time.seconds;
    time_.scopes[scope_of_any_layer(scope(program_.ops[index]))] += time.seconds;
  }

  void wait_for(double ready, int32_t from) {
    if (ready <= now_) return;
    if (from >= 0) time_.exposed[axes_[static_cast<size_t>(from)]] += ready - now_;
    now_ = ready;
  }

  void run_waiting() {
    for (size_t i = 0; i < waiting_.size();) {
      if (waiting_[i].ready > now_) {
        ++i;
        continue;
      }
      compute(waiting_[i].index, waiting_[i].time);
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void enter_span(const Op& op) {
    if (op.scope == last_scope_) return;
    last_scope_ = op.scope;
    std::string name = span_of_scope(scope(op));
    if (name == span_) return;
    close_span();
    span_ = std::move(name);
    span_before_ = span_start_;
    span_start_ = now_;
  }

  void close_span() {
    if (now_ > span_start_ || span_transfer_ > 0) time_.spans.push_back({span_, span_start_, now_, span_transfer_});
    time_.gathered_ahead = std::max(time_.gathered_ahead, span_gathered_);
    span_transfer_ = 0;
    span_gathered_ = 0;
  }

  const std::string& scope(const Op& op) const { return program_.scopes[static_cast<size_t>(op.scope)]; }

  const Piece& piece_;
  const Program& program_;
  const CostModel& model_;
  const ScopeFilter& counts_;
  PieceTime time_;
  double now_ = 0;             // end of the last op that computed
  std::vector<double> ready_;  // by value
  std::vector<int32_t> from_;  // by value: the axes that it came over, -1: it was computed
  std::vector<bool> used_;     // by value: some op reads it
  std::vector<double> link_free_;
  std::map<size_t, int32_t> last_on_link_;
  std::vector<std::string> axes_;
  std::vector<Waiting> waiting_;
  bool scheduled_ = false;                                             // the Plan says which transfers are beside compute
  std::map<size_t, std::vector<std::pair<double, int32_t>>> flights_;  // end and axes of what is in flight, by the op that waits for it
  std::string span_;
  int32_t last_scope_ = -1;
  double span_start_ = 0, span_before_ = 0, span_transfer_ = 0;
  int64_t span_gathered_ = 0;
};

}  // namespace

std::string span_of_scope(std::string_view scope) {
  const auto layer = parse_layer_scope(scope);
  if (!layer) return std::string(scope);
  return std::string(scope.substr(0, scope.size() - (layer->part.empty() ? 0 : layer->part.size() + 1)));
}

std::string scope_of_any_layer(std::string_view scope) {
  const auto layer = parse_layer_scope(scope);
  if (!layer) return std::string(scope);
  return layer->part.empty() ? "layers.*" : "layers.*." + std::string(layer->part);
}

PieceTime time_piece(const Piece& piece, const CostModel& model, const ScopeFilter& counts) { return Playback(piece, model, counts).run(); }

StepTime time_step(const Plan& plan, const CostModel& model, const ScopeFilter& counts) {
  StepTime step;
  for (const Piece& piece : plan.pieces) step.pieces.push_back(time_piece(piece, model, counts));
  for (const RunRow& row : plan.order) ++step.pieces[static_cast<size_t>(row.piece)].runs;
  for (const PieceTime& piece : step.pieces) {
    const double runs = static_cast<double>(piece.runs);
    step.seconds += runs * piece.seconds;
    step.flops_seconds += runs * piece.flops_seconds;
    step.bytes_seconds += runs * piece.bytes_seconds;
    step.transfer_seconds += runs * piece.transfer_seconds;
    step.exposed_seconds += runs * piece.exposed_seconds;
    for (const auto& [axes, seconds] : piece.exposed) step.exposed[axes] += runs * seconds;
    for (const auto& [scope, seconds] : piece.scopes) step.scopes[scope] += runs * seconds;
    step.gathered_ahead = std::max(step.gathered_ahead, piece.gathered_ahead);
  }
  if (!model.settings().overlap) step.gathered_ahead = 0;
  return step;
}

}  // namespace mw
