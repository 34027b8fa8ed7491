#include "checkpoint/rearranged.h"

#include "base/error.h"
#include "fuzz/mutator.h"
#include "runner.h"

namespace mw {
namespace {

// Reads from one part after the other: element n of part p is 1000 p + n.
void numbered(size_t part, int64_t first, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(static_cast<int64_t>(part) * 100000 + first + i);
}

float element(const Rearranged& tensor, const Shape& index) {
  const bool placed = static_cast<bool>(tensor.place);
  const Place place = placed ? tensor.place(index[tensor.split_dim]) : Place{};
  int64_t at = tensor.parts[place.part].base + place.offset;
  for (size_t d = 0; d < index.size(); ++d) {
    if (!placed || d != tensor.split_dim) at += index[d] * tensor.parts[place.part].strides[d];
  }
  return static_cast<float>(static_cast<int64_t>(place.part) * 100000 + at) + tensor.added;
}

void expect_every_slice_right(const Rearranged& tensor, uint64_t seed) {
  Mutator random(seed);
  for (int round = 0; round < 40; ++round) {
    Slice slice = whole(tensor.shape);
    for (size_t d = 0; round > 0 && d < tensor.shape.size(); ++d) {
      slice.begin[d] = static_cast<int64_t>(random.below(static_cast<size_t>(tensor.shape[d]) + 1));
      slice.end[d] = slice.begin[d] + static_cast<int64_t>(random.below(static_cast<size_t>(tensor.shape[d] - slice.begin[d]) + 1));
    }
    const int64_t count = num_elements(slice);
    std::vector<double> doubles(static_cast<size_t>(count), -1);
    std::vector<float> floats(static_cast<size_t>(count), -1);
    read_rearranged("t", tensor, slice, DType::kF64, doubles.data(), numbered);
    read_rearranged("t", tensor, slice, DType::kF32, floats.data(), numbered);
    Shape index = slice.begin;
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(floats[static_cast<size_t>(i)], element(tensor, index));
      EXPECT_EQ(doubles[static_cast<size_t>(i)], static_cast<double>(floats[static_cast<size_t>(i)]));
      for (size_t d = index.size(); d-- > 0;) {
        if (++index[d] < slice.end[d]) break;
        index[d] = slice.begin[d];
      }
    }
  }
}

}  // namespace

TEST(checkpoint, rearranged_tensors_are_right_in_every_slice) {
  expect_every_slice_right(as_stored({7}), 1);
  expect_every_slice_right(as_stored({3, 300}), 2);
  expect_every_slice_right(as_stored({2, 3, 5, 4}), 3);
  expect_every_slice_right({.shape = {5, 4}, .parts = {{.base = 40, .strides = {4, 1}}}}, 4);
  expect_every_slice_right({.shape = {300, 7}, .parts = {{.base = 0, .strides = {1, 300}}}}, 5);
  expect_every_slice_right({.shape = {2, 600, 3}, .parts = {{.base = 0, .strides = {1800, 1, 600}}}, .added = -1}, 6);
  expect_every_slice_right({.shape = {12, 5},
                            .parts = {{.base = 0, .strides = {0, 1}}},
                            .place = [](int64_t r) { return Place{0, (r / 6 * 6 + r % 3 * 2 + r % 6 / 3) * 5}; }},
                           7);
  expect_every_slice_right({.shape = {12},
                            .parts = {{.base = 0, .strides = {0}}},
                            .place = [](int64_t r) { return Place{0, r / 6 * 6 + r % 3 * 2 + r % 6 / 3}; }},
                           8);
  const RearrangedPart gate{.base = 0, .strides = {4 * 270, 1, 0}};
  expect_every_slice_right({.shape = {2, 270, 8},
                            .parts = {gate, gate},
                            .split_dim = 2,
                            .place = [](int64_t c) { return Place{static_cast<size_t>(c % 2), c / 2 * 270}; }},
                           9);
  expect_every_slice_right({.shape = {2, 270, 8},
                            .parts = {gate, gate},
                            .split_dim = 2,
                            .place = [](int64_t c) { return Place{static_cast<size_t>(c / 4), c % 4 * 270}; }},
                           10);
  // Keys [H, latent, n] and values [H, v, latent] as [H (n + v), latent] of MLA.
  const int64_t heads = 3, latent = 10, n = 4, v = 6;
  expect_every_slice_right({.shape = {heads * (n + v), latent},
                            .parts = {{.base = 0, .strides = {0, n}}, {.base = 0, .strides = {0, 1}}},
                            .place =
                                [=](int64_t row) {
                                  const int64_t head = row / (n + v), i = row % (n + v);
                                  return i < n ? Place{0, head * latent * n + i} : Place{1, (head * v + i - n) * latent};
                                }},
                           11);
}

TEST(checkpoint, rearranged_scalars_and_errors) {
  float value = 0;
  read_rearranged("t", as_stored({}), {}, DType::kF32, &value, numbered);
  EXPECT_EQ(value, 0.0f);
  read_rearranged("t", as_stored({0, int64_t{1} << 62, 4}), whole({0, int64_t{1} << 62, 4}), DType::kF32, nullptr, numbered);
  EXPECT_ERROR(UserError, { read_rearranged("t", as_stored({2}), {{0}, {3}}, DType::kF32, &value, numbered); }, "not inside tensor 't'");
  EXPECT_ERROR(UserError, { read_rearranged("t", as_stored({2}), {{0}, {1}}, DType::kI32, &value, numbered); }, "cannot be read as i32");
}

}  // namespace mw
