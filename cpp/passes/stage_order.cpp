#include "passes/stage_order.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/error.h"

namespace mw {
namespace {

struct OrderName {
  PipelineOrder order;
  const char* name;
};
constexpr std::array<OrderName, 4> kOrders{OrderName{PipelineOrder::kGpipe, "gpipe"}, OrderName{PipelineOrder::k1F1B, "1f1b"},
                                           OrderName{PipelineOrder::kInterleaved, "interleaved"},
                                           OrderName{PipelineOrder::kZeroBubble, "zero_bubble"}};

// `warm_up` forwards, then a forward and a backward in turn, then the backwards that are left.
std::vector<StageRow> in_turn(const std::vector<StageRow>& forwards, const std::vector<StageRow>& backwards, int64_t warm_up) {
  std::vector<StageRow> rows;
  const auto first = static_cast<size_t>(std::min<int64_t>(warm_up, std::ssize(forwards)));
  rows.insert(rows.end(), forwards.begin(), forwards.begin() + static_cast<std::ptrdiff_t>(first));
  for (size_t i = first; i < forwards.size(); ++i) rows.insert(rows.end(), {forwards[i], backwards[i - first]});
  rows.insert(rows.end(), backwards.end() - static_cast<std::ptrdiff_t>(first), backwards.end());
  return rows;
}

// Groups of as many microbatches as there are stages go through one run of layers after the other.
std::vector<StageRow> by_groups(const PipelineShape& shape, StageWork work) {
  std::vector<StageRow> rows;
  for (int64_t group = 0; group < shape.microbatches; group += shape.stages) {
    for (int64_t c = 0; c < shape.chunks; ++c) {
      const int64_t chunk = work == StageWork::kForward ? c : shape.chunks - 1 - c;
      for (int64_t m = group; m < std::min(group + shape.stages, shape.microbatches); ++m) rows.push_back({work, chunk, m});
    }
  }
  return rows;
}

// 1F1B whose backward is that of the input alone; stage s puts the gradient of a weight behind it as soon as s of them wait. They fill the
// time in which 1F1B drains, and every stage holds as many microbatches as 1F1B's first one (ZB-H1 of Qi et al. 2024).
std::vector<StageRow> zero_bubble(const PipelineShape& shape, int64_t stage) {
  const std::vector<StageRow> forwards = by_groups(shape, StageWork::kForward), inputs = by_groups(shape, StageWork::kBackwardInput);
  std::vector<StageRow> rows;
  int64_t done = 0;
  for (const StageRow& row : in_turn(forwards, inputs, shape.stages - 1 - stage)) {
    rows.push_back(row);
    if (row.work == StageWork::kBackwardInput && row.microbatch >= stage) rows.push_back({StageWork::kBackwardWeight, 0, done++});
  }
  while (done < shape.microbatches) rows.push_back({StageWork::kBackwardWeight, 0, done++});
  return rows;
}

}  // namespace

PipelineOrder parse_pipeline_order(std::string_view text) {
  std::vector<std::string> names;
  for (const OrderName& known : kOrders) {
    if (known.name == text) return known.order;
    names.emplace_back(known.name);
  }
  throw UserError("there is no pipeline order '" + std::string(text) + "'" + did_you_mean(std::string(text), names) +
                  "; known: gpipe, 1f1b, interleaved, zero_bubble");
}

std::string to_string(PipelineOrder order) {
  for (const OrderName& known : kOrders) {
    if (known.order == order) return known.name;
  }
  throw InternalError("unknown order of a pipeline");
}

void check_pipeline(PipelineOrder order, const PipelineShape& shape) {
  if (shape.stages < 1 || shape.chunks < 1 || shape.microbatches < 1) {
    throw UserError(concat_text("a pipeline has ", shape.stages, " stages, ", shape.chunks, " chunks and ", shape.microbatches,
                                " microbatches; expected at least 1 of each"));
  }
  if (shape.chunks > 1 && order != PipelineOrder::kInterleaved && order != PipelineOrder::kGpipe) {
    throw UserError(
        concat_text("a stage has ", shape.chunks, " chunks, which pipeline=interleaved and gpipe take; found pipeline=", to_string(order)));
  }
  if (order != PipelineOrder::kInterleaved || shape.chunks == 1 || shape.microbatches % shape.stages == 0) return;
  const int64_t below = shape.microbatches / shape.stages * shape.stages;
  throw UserError(concat_text("pipeline=interleaved works on groups of as many microbatches as there are stages (", shape.stages,
                              "); found ", shape.microbatches,
                              " microbatches, nearest that work: ", below > 0 ? std::to_string(below) + " or " : "", below + shape.stages));
}

std::vector<StageRow> stage_order(PipelineOrder order, const PipelineShape& shape, int64_t stage) {
  check_pipeline(order, shape);
  MW_CHECK(stage >= 0 && stage < shape.stages, "stage ", stage, " of ", shape.stages);
  if (order == PipelineOrder::kZeroBubble) return zero_bubble(shape, stage);
  const std::vector<StageRow> forwards = by_groups(shape, StageWork::kForward), backwards = by_groups(shape, StageWork::kBackward);
  const int64_t behind = shape.stages - 1 - stage;
  switch (order) {
    case PipelineOrder::kGpipe:
      return in_turn(forwards, backwards, std::ssize(forwards));
    case PipelineOrder::k1F1B:
      return in_turn(forwards, backwards, behind);
    default:
      return in_turn(forwards, backwards, shape.chunks == 1 ? behind : 2 * behind + (shape.chunks - 1) * shape.stages);
  }
}

int64_t most_in_flight(const std::vector<StageRow>& rows) {
  std::map<int64_t, int64_t> left;  // backwards, by microbatch
  for (const StageRow& row : rows) left[row.microbatch] += ends_backward(row.work);
  std::set<int64_t> open;
  int64_t most = 0;
  for (const StageRow& row : rows) {
    open.insert(row.microbatch);
    most = std::max<int64_t>(most, std::ssize(open));
    if (ends_backward(row.work) && --left[row.microbatch] == 0) open.erase(row.microbatch);
  }
  return most;
}

PlayedPipeline play_pipeline(const std::vector<std::vector<StageRow>>& orders, const PipelineShape& shape, const StageTimes& times) {
  const int64_t parts = shape.stages * shape.chunks;
  // When what each part hands on is there, by part and microbatch; below 0: not yet.
  const auto table = [&] { return std::vector<double>(static_cast<size_t>(parts * shape.microbatches), -1.0); };
  std::vector<double> forward = table(), input = table();
  const auto at = [&](int64_t part, int64_t microbatch) { return static_cast<size_t>(part * shape.microbatches + microbatch); };
  PlayedPipeline played;
  std::vector<size_t> next(orders.size(), 0);
  std::vector<double> free(orders.size(), 0.0);
  double busy = 0;
  for (const auto& rows : orders) played.start.emplace_back(rows.size(), 0.0);

  // The time at which the operands of a row are there, or below 0.
  const auto ready = [&](int64_t stage, const StageRow& row) {
    const int64_t part = row.chunk * shape.stages + stage;
    const auto arrives = [&](double sent) { return sent < 0 ? sent : sent + times.send; };
    if (row.work == StageWork::kForward) return part == 0 ? 0.0 : arrives(forward[at(part - 1, row.microbatch)]);
    if (row.work == StageWork::kBackwardWeight) return input[at(part, row.microbatch)];
    const double own = forward[at(part, row.microbatch)];
    if (own < 0 || part + 1 == parts) return own;
    const double behind = arrives(input[at(part + 1, row.microbatch)]);
    return behind < 0 ? behind : std::max(own, behind);
  };
  const auto takes = [&](StageWork work) {
    if (work == StageWork::kForward) return times.forward;
    if (work == StageWork::kBackwardInput) return times.backward_input;
    return (work == StageWork::kBackward ? times.backward_input : 0.0) + times.backward_weight;
  };

  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = 0; s < orders.size(); ++s) {
      for (; next[s] < orders[s].size(); ++next[s]) {
        const StageRow& row = orders[s][next[s]];
        const double since = ready(static_cast<int64_t>(s), row);
        if (since < 0) break;
        const double begin = std::max(free[s], since);
        played.start[s][next[s]] = begin;
        free[s] = begin + takes(row.work);
        busy += takes(row.work);
        const size_t slot = at(row.chunk * shape.stages + static_cast<int64_t>(s), row.microbatch);
        if (row.work == StageWork::kForward) forward[slot] = free[s];
        if (row.work == StageWork::kBackward || row.work == StageWork::kBackwardInput) input[slot] = free[s];
        moved = true;
      }
    }
  }
  for (size_t s = 0; s < orders.size(); ++s) {
    MW_CHECK(next[s] == orders[s].size(), "stage ", s, " of a pipeline waits forever at row ", next[s], ": chunk ",
             orders[s][next[s]].chunk, ", microbatch ", orders[s][next[s]].microbatch);
    played.seconds = std::max(played.seconds, free[s]);
  }
  if (played.seconds > 0) played.bubble = 1 - busy / (played.seconds * static_cast<double>(orders.size()));
  return played;
}

}  // namespace mw
