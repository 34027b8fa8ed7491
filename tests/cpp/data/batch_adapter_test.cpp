#include "data/batch_adapter.h"

#include "base/error.h"
#include "data/loader.h"
#include "runner.h"

namespace mw {
namespace {

using Ids = std::vector<int32_t>;

template <typename T>
ArrayView view(const std::vector<T>& values, std::vector<int64_t> shape, char kind = std::is_floating_point_v<T> ? 'f' : 'i') {
  return {kind, sizeof(T), std::move(shape), values.data()};
}

std::string floats_text(const std::vector<float>& values) {
  std::string text;
  for (const float value : values) text += testing::show(value) + " ";
  return text;
}

}  // namespace

TEST(data, adapter_shifts_ids_by_default) {
  const std::vector<int64_t> ids{5, 6, 7, 8, 9, 1};
  const ModelBatch batch = adapt_batch({.input_ids = view(ids, {2, 3})}, 10);
  EXPECT(batch.input_ids == (Ids{5, 6, 7, 8, 9, 1}));
  EXPECT(batch.targets == (Ids{6, 7, -100, 9, 1, -100}));
  EXPECT(batch.segment_ids == (Ids{0, 0, 0, 0, 0, 0}));
  EXPECT(batch.position_ids == (Ids{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(floats_text(batch.loss_weights), "1 1 0 1 1 0 ");
  EXPECT_EQ(batch.num_targets, int64_t{4});
  EXPECT_EQ(batch.weight_sum, 4.0);
}

TEST(data, adapter_takes_labels_and_weights_of_the_token_itself) {
  const Ids ids{5, 6, 7, 8};
  const std::vector<int64_t> labels{-100, -100, 3, 4};
  const std::vector<float> weights{9, 9, 0.5f, 2};
  const ModelBatch batch =
      adapt_batch({.input_ids = view(ids, {1, 4}), .labels = view(labels, {1, 4}), .loss_weights = view(weights, {1, 4})}, 10);
  EXPECT(batch.targets == (Ids{-100, 3, 4, -100}));
  EXPECT_EQ(floats_text(batch.loss_weights), "0 0.5 2 0 ");
  EXPECT_EQ(batch.weight_sum, 2.5);
}

TEST(data, adapter_leaves_given_targets_where_they_are) {
  const Ids ids{5, 6, 7, 8}, targets{6, 7, -100, 2}, segments{0, 0, 0, 1};
  const std::vector<double> weights{1, 2, 3, 4};
  const ModelBatch batch = adapt_batch({.input_ids = view(ids, {1, 4}),
                                        .targets = view(targets, {1, 4}),
                                        .segment_ids = view(segments, {1, 4}),
                                        .loss_weights = view(weights, {1, 4})},
                                       10);
  EXPECT(batch.targets == targets);
  EXPECT_EQ(floats_text(batch.loss_weights), "1 2 0 4 ");
}

TEST(data, adapter_pads_left_and_right) {
  const Ids ids{1, 1, 5, 6, 7, 8, 9, 1};
  const std::vector<int64_t> mask{0, 0, 1, 1, 1, 1, 1, 0};
  const std::vector<uint8_t> boolean{0, 0, 1, 1, 1, 1, 1, 0};
  for (const ArrayView& given : {view(mask, {2, 4}), view(boolean, {2, 4}, 'b')}) {
    const ModelBatch batch = adapt_batch({.input_ids = view(ids, {2, 4}), .attention_mask = given}, 10);
    EXPECT(batch.segment_ids == (Ids{-1, -1, 0, 0, 0, 0, 0, -1}));
    EXPECT(batch.position_ids == (Ids{0, 0, 0, 1, 0, 1, 2, 0}));
    EXPECT(batch.targets == (Ids{-100, -100, 6, -100, 8, 9, -100, -100}));
  }
}

TEST(data, adapter_ends_targets_at_segments) {
  const Ids ids{1, 2, 3, 4, 5, 6}, segments{4, 4, 2, 2, 2, -1};
  const ModelBatch batch = adapt_batch({.input_ids = view(ids, {1, 6}), .segment_ids = view(segments, {1, 6})}, 10);
  EXPECT(batch.targets == (Ids{2, -100, 4, 5, -100, -100}));
  EXPECT(batch.position_ids == (Ids{0, 1, 0, 1, 2, 0}));
  EXPECT(batch.segment_ids == segments);
  const Ids positions{3, 4, 7, 8, 9, 0};
  EXPECT(adapt_batch({.input_ids = view(ids, {1, 6}), .position_ids = view(positions, {1, 6})}, 10).position_ids == positions);
}

TEST(data, adapter_keeps_the_loaders_batch) {
  const Ids ids{1, 2, 3, 4}, targets{2, -100, 4, 7}, segments{0, 0, 1, 1}, positions{0, 1, 0, 1};
  const ModelBatch batch = adapt_batch({.input_ids = view(ids, {1, 4}),
                                        .targets = view(targets, {1, 4}),
                                        .segment_ids = view(segments, {1, 4}),
                                        .position_ids = view(positions, {1, 4})},
                                       10);
  EXPECT(batch.targets == targets && batch.segment_ids == segments && batch.position_ids == positions);
  EXPECT_EQ(batch.num_targets, int64_t{3});
}

TEST(data, adapter_errors) {
  const Ids ids{1, 2, 3, 4, 5, 6};
  const std::vector<int64_t> wide{1, 2, 3, 4, 5, 10};
  const Ids negative{1, -1, 3, 4, 5, 6}, two{1, 1, 2, 1, 1, 1}, back{0, 1, 0, 0, 0, 0};
  const std::vector<float> floats{1, 2, 3, 4, 5, std::nanf("")}, minus{1, 2, 3, -4, 5, 6};
  const std::vector<int16_t> narrow(6);
  const auto with = [&](auto change) {
    UserBatch batch{.input_ids = view(ids, {2, 3})};
    change(batch);
    adapt_batch(batch, 10);
  };
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.input_ids = view(wide, {2, 3}); }); },
      "input_ids, row 1, position 2: expected a token id in 0..9 (the vocabulary has 10), found 10");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.input_ids = view(negative, {2, 3}); }); }, "row 0, position 1", "found -1");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.labels = view(wide, {2, 3}); }); }, "labels, row 1, position 2", "or -100, found 10");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.input_ids = view(ids, {6}); }); },
      "input_ids: expected an array [batch, seq], found the shape [6]");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.input_ids = view(ids, {0, 3}); }); }, "at least one row", "[0, 3]");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.labels = view(ids, {3, 2}); }); },
      "labels: expected the shape [2, 3] of input_ids, found [3, 2]");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.input_ids = view(floats, {2, 3}); }); }, "input_ids: expected int32 or int64, found float32");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.labels = view(narrow, {2, 3}); }); }, "labels: expected int32 or int64, found int16");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.attention_mask = view(floats, {2, 3}); }); }, "attention_mask", "bool, found float32");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.attention_mask = view(two, {2, 3}); }); }, "row 0, position 2", "or 0 (padding), found 2");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.segment_ids = view(back, {2, 3}); }); }, "row 0, position 2", "segment 0 again");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.position_ids = view(negative, {2, 3}); }); }, "position_ids, row 0, position 1", "found -1");
  EXPECT_ERROR(
      UserError, { with([&](UserBatch& b) { b.loss_weights = view(ids, {2, 3}); }); },
      "loss_weights: expected float32 or float64, found int32");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.loss_weights = view(floats, {2, 3}); }); }, "row 1, position 2", "found nan");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.loss_weights = view(minus, {2, 3}); }); }, "row 1, position 0", "found -4");
  EXPECT_ERROR(UserError, { with([&](UserBatch& b) { b.labels = b.targets = view(ids, {2, 3}); }); }, "either labels", "found both");
}

}  // namespace mw
