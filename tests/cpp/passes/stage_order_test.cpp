// The orders of a pipeline: complete, free of deadlock, and with the bubbles of their papers.
#include "passes/stage_order.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "base/error.h"
#include "runner.h"

namespace mw {
namespace {

const std::vector<PipelineOrder> kOrders{PipelineOrder::kGpipe, PipelineOrder::k1F1B, PipelineOrder::kInterleaved,
                                         PipelineOrder::kZeroBubble};

std::vector<std::vector<StageRow>> orders_of(PipelineOrder order, const PipelineShape& shape) {
  std::vector<std::vector<StageRow>> orders;
  for (int64_t stage = 0; stage < shape.stages; ++stage) orders.push_back(stage_order(order, shape, stage));
  return orders;
}

PlayedPipeline play(PipelineOrder order, const PipelineShape& shape, const StageTimes& times = {}) {
  return play_pipeline(orders_of(order, shape), shape, times);
}

template <typename Body>
void each_shape(Body&& body) {
  for (const PipelineOrder order : kOrders) {
    for (int64_t stages = 1; stages <= 6; ++stages) {
      for (int64_t chunks = 1; chunks <= (order == PipelineOrder::kInterleaved ? 3 : 1); ++chunks) {
        for (int64_t microbatches = 1; microbatches <= 12; ++microbatches) {
          if (chunks == 1 || microbatches % stages == 0) body(order, PipelineShape{stages, chunks, microbatches});
        }
      }
    }
  }
}

}  // namespace

TEST(stage_order, every_row_once_and_microbatches_ascend) {
  each_shape([](PipelineOrder order, const PipelineShape& shape) {
    for (const std::vector<StageRow>& rows : orders_of(order, shape)) {
      const bool splits = order == PipelineOrder::kZeroBubble;
      EXPECT_EQ(std::ssize(rows), (splits ? 3 : 2) * shape.chunks * shape.microbatches);
      std::set<std::tuple<StageWork, int64_t, int64_t>> seen;
      std::map<std::pair<StageWork, int64_t>, int64_t> last;
      for (const StageRow& row : rows) {
        EXPECT(seen.insert({row.work, row.chunk, row.microbatch}).second);
        EXPECT((row.work == StageWork::kForward) || ((row.work == StageWork::kBackward) != splits));
        const auto [at, first] = last.emplace(std::pair(row.work, row.chunk), row.microbatch);
        EXPECT(first || row.microbatch == at->second + 1);
        at->second = row.microbatch;
      }
    }
  });
}

TEST(stage_order, no_order_waits_forever) {
  each_shape([](PipelineOrder order, const PipelineShape& shape) {
    const PlayedPipeline played = play(order, shape, {.forward = 1, .backward_input = 1.3, .backward_weight = 0.8, .send = 0.1});
    EXPECT(played.seconds > 0 && played.bubble >= -1e-12 && played.bubble < 1);
  });
  // Backwards in another order than forwards arrive: each waits for the other.
  const PipelineShape two{2, 1, 2};
  std::vector<std::vector<StageRow>> crossed = orders_of(PipelineOrder::k1F1B, two);
  std::swap(crossed[1][0], crossed[1][2]);
  std::swap(crossed[1][1], crossed[1][3]);
  std::swap(crossed[0][1], crossed[0][2]);
  EXPECT_ERROR(InternalError, { play_pipeline(crossed, two, {}); }, "waits forever");
}

// (p - 1) / (m + p - 1), a v-th of the p - 1 with v chunks.
TEST(stage_order, bubbles) {
  for (const int64_t p : {2, 4, 8}) {
    for (const int64_t m : {p, 2 * p, 4 * p}) {
      const double stages = static_cast<double>(p), microbatches = static_cast<double>(m);
      const double usual = (stages - 1) / (microbatches + stages - 1);
      EXPECT_NEAR(play(PipelineOrder::kGpipe, {p, 1, m}).bubble, usual, 1e-9);
      EXPECT_NEAR(play(PipelineOrder::k1F1B, {p, 1, m}).bubble, usual, 1e-9);
      for (const int64_t v : {2, 4}) {
        const double share = (stages - 1) / static_cast<double>(v);
        EXPECT_NEAR(play(PipelineOrder::kInterleaved, {p, v, m}).bubble, share / (microbatches + share), 1e-9);
      }
      // Qi et al. 2024: (p - 1)(F + B - W) in place of (p - 1)(F + B + W).
      const double third = (stages - 1) / 3;
      EXPECT_NEAR(play(PipelineOrder::kZeroBubble, {p, 1, m}).bubble, third / (microbatches + third), 1e-9);
    }
  }
}

TEST(stage_order, microbatches_in_flight) {
  for (const int64_t p : {1, 2, 4}) {
    for (int64_t stage = 0; stage < p; ++stage) {
      EXPECT_EQ(most_in_flight(stage_order(PipelineOrder::kGpipe, {p, 1, 8}, stage)), int64_t{8});
      EXPECT_EQ(most_in_flight(stage_order(PipelineOrder::k1F1B, {p, 1, 8}, stage)), p - stage);
      EXPECT(most_in_flight(stage_order(PipelineOrder::kZeroBubble, {p, 1, 8}, stage)) <= p);
    }
  }
}

TEST(stage_order, errors) {
  EXPECT_ERROR(UserError, { parse_pipeline_order("1f1"); }, "there is no pipeline order '1f1' (did you mean '1f1b'?); known: gpipe, 1f1b");
  EXPECT_ERROR(
      UserError, { check_pipeline(PipelineOrder::k1F1B, {2, 2, 4}); },
      "2 chunks, which pipeline=interleaved and gpipe take; found pipeline=1f1b");
  EXPECT_ERROR(
      UserError, { check_pipeline(PipelineOrder::kInterleaved, {4, 2, 6}); },
      "groups of as many microbatches as there are stages (4); found 6 microbatches, nearest that work: 4 or 8");
  EXPECT_ERROR(UserError, { check_pipeline(PipelineOrder::kGpipe, {0, 1, 4}); }, "expected at least 1 of each");
  for (const PipelineOrder order : kOrders) EXPECT(parse_pipeline_order(to_string(order)) == order);
}

}  // namespace mw
