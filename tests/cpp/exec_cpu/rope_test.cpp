#include "exec/cpu/kernels/rope.h"

#include "arrays.h"
#include "base/error.h"

namespace mw {
namespace {

using namespace testing;

struct Case {
  int64_t rows, heads, head_dim, rotary;
  DType dtype;
  bool interleaved = false;
};
const Case kCases[] = {{5, 3, 64, 64, DType::kF32},     {4, 2, 48, 48, DType::kBF16},       {3, 1, 40, 20, DType::kF32},
                       {2, 2, 6, 4, DType::kF32, true}, {7, 2, 64, 32, DType::kBF16, true}, {300, 4, 128, 128, DType::kF32}};

Array frequencies(int64_t pairs) {
  Array array(DType::kF32, pairs);
  for (int64_t i = 0; i < pairs; ++i) array.set(i, std::pow(10000.0, -static_cast<double>(i) / pairs));
  return array;
}

TEST(rope, rotates_and_turns_back) {
  for (const Case& c : kCases) {
    const int64_t pairs = c.rotary / 2, size = c.rows * c.heads * c.head_dim;
    const Array x = random_array(c.dtype, size, 1), inv_freq = frequencies(pairs);
    Array positions(DType::kI32, c.rows);
    for (int64_t r = 0; r < c.rows; ++r) positions.set(r, r * r % 1000);
    const double factor = 1.25;
    for (bool inverse : {false, true}) {
      std::vector<double> expected(size);
      for (int64_t i = 0; i < size; ++i) expected[i] = x[i];
      for (int64_t r = 0; r < c.rows; ++r) {
        for (int64_t h = 0; h < c.heads; ++h) {
          for (int64_t p = 0; p < pairs; ++p) {
            const float angle = static_cast<float>(positions[r]) * static_cast<float>(inv_freq[p]);
            const double cosine = factor * std::cos(double{angle}), sine = factor * std::sin(double{angle}) * (inverse ? -1 : 1);
            const int64_t at = (r * c.heads + h) * c.head_dim, a = at + (c.interleaved ? 2 * p : p),
                          b = at + (c.interleaved ? 2 * p + 1 : p + pairs);
            expected[a] = x[a] * cosine - x[b] * sine;
            expected[b] = x[b] * cosine + x[a] * sine;
          }
        }
      }
      for_each_machine([&](ThreadPool& pool, Isa isa) {
        Array table(DType::kU8, rope_table_bytes(c.rows, c.rotary)), y(c.dtype, size), same = x.copy();
        float* const t = table.floats();
        rope_table(pool, isa, positions.ints(), c.rows, static_cast<const float*>(inv_freq.data()), pairs, factor, t);
        RopeCall call{.x = x.data(),
                      .y = y.data(),
                      .table = t,
                      .rows = c.rows,
                      .heads = c.heads,
                      .head_dim = c.head_dim,
                      .rotary = c.rotary,
                      .dtype = c.dtype,
                      .interleaved = c.interleaved,
                      .inverse = inverse};
        rope(pool, isa, call);
        expect_close(y, expected, "rope");
        call.x = call.y = same.data();
        rope(pool, isa, call);
        EXPECT(same.same_bits(y));
      });
    }
  }
}

// Cosine and sine of the f32 angle, correct to one unit in the last place up to positions of millions.
TEST(rope, table_is_exact_for_large_positions) {
  const int64_t pairs = 37;
  const Array inv_freq = frequencies(pairs);
  Array positions(DType::kI32, 6);
  const int32_t values[] = {0, 1, 4095, 131071, 1000000, 2147483647};
  for (int i = 0; i < 6; ++i) positions.set(i, values[i]);
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array table(DType::kF32, 6 * 2 * pairs);
    rope_table(pool, isa, positions.ints(), 6, static_cast<const float*>(inv_freq.data()), pairs, 1.0f, table.floats());
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t p = 0; p < pairs; ++p) {
        const float angle = static_cast<float>(values[r]) * static_cast<float>(inv_freq[p]);
        const double cosine = std::cos(double{angle}), sine = std::sin(double{angle});
        EXPECT_NEAR(table[(2 * r) * pairs + p], cosine, 6.1e-8 * std::abs(cosine));
        EXPECT_NEAR(table[(2 * r + 1) * pairs + p], sine, 6.1e-8 * std::abs(sine));
      }
    }
  });
}

TEST(rope, rows_inside_a_wider_array) {
  const int64_t rows = 9, heads = 2, head_dim = 16, wide = 50;
  const Array x = random_array(DType::kF32, rows * wide, 1), inv_freq = frequencies(8);
  Array positions(DType::kI32, rows);
  for (int64_t r = 0; r < rows; ++r) positions.set(r, 3 * r);
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array table(DType::kF32, rows * 16), dense(DType::kF32, rows * 32), expected(DType::kF32, rows * 32), y(DType::kF32, rows * 32);
    rope_table(pool, isa, positions.ints(), rows, static_cast<const float*>(inv_freq.data()), 8, 1.0f, table.floats());
    for (int64_t i = 0; i < rows * 32; ++i) dense.set(i, x[i / 32 * wide + i % 32]);
    RopeCall call{.x = dense.data(),
                  .y = expected.data(),
                  .table = table.floats(),
                  .rows = rows,
                  .heads = heads,
                  .head_dim = head_dim,
                  .rotary = 16,
                  .dtype = DType::kF32};
    rope(pool, isa, call);
    call.x = x.data(), call.y = y.data(), call.x_row = wide;
    rope(pool, isa, call);
    EXPECT(y.same_bits(expected));
  });
}

TEST(rope, odd_rotary_is_an_internal_error) {
  ThreadPool pool(1);
  EXPECT_ERROR(
      InternalError,
      {
        rope(pool, Isa::kAvx2,
             {.x = nullptr, .y = nullptr, .table = nullptr, .rows = 1, .heads = 1, .head_dim = 8, .rotary = 10, .dtype = DType::kF32});
      },
      "10 of 8");
}

}  // namespace
}  // namespace mw
