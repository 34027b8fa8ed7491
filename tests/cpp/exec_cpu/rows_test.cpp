#include "exec/cpu/kernels/rows.h"

#include <numeric>

#include "arrays.h"
#include "base/error.h"

namespace mw {
namespace {

using namespace testing;

Array random_ids(int64_t count, int64_t below, uint64_t seed) {
  Array ids(DType::kI32, count);
  for (int64_t i = 0; i < count; ++i) ids.set(i, RandomStream(seed, 0, "ids").word(i) % below);
  return ids;
}

TEST(rows, gather_with_ids_outside_the_shard) {
  for (int64_t width : {1, 33, 768}) {
    const int64_t rows = 50, count = 777, first_id = 20;
    const Array table = random_array(DType::kBF16, rows * width, 1);
    Array ids = random_ids(count, 100, 2);
    ids.set(5, -1), ids.set(6, 2147483647), ids.set(7, -2147483648.0);
    Array expected(DType::kBF16, count * width);
    for (int64_t i = 0; i < count * width; ++i) {
      const int64_t row = static_cast<int64_t>(ids[i / width]) - first_id;
      if (row >= 0 && row < rows) expected.set(i, table[row * width + i % width]);
    }
    for_each_machine([&](ThreadPool& pool, Isa) {
      Array y = random_array(DType::kBF16, count * width, 3);
      gather_rows(pool, {.table = table.data(),
                         .ids = ids.ints(),
                         .y = y.data(),
                         .rows = rows,
                         .count = count,
                         .row_bytes = width * 2,
                         .first_id = first_id});
      EXPECT(y.same_bits(expected));
    });
  }
}

TEST(rows, scatter_adds_in_order) {
  struct Case {
    int64_t rows, count, width, first_id;
    DType x, table;
    bool accumulate;
  };
  for (const Case c : {Case{70000, 1000, 5, 0, DType::kF32, DType::kF32, false}, Case{30, 2000, 33, 10, DType::kBF16, DType::kF32, true},
                       Case{300, 500, 48, 0, DType::kF32, DType::kBF16, false}, Case{1, 40, 7, 3, DType::kBF16, DType::kBF16, true},
                       Case{9, 0, 4, 0, DType::kF32, DType::kF32, false}}) {
    const Array x = random_array(c.x, c.count * c.width, 1), start = random_array(c.table, c.rows * c.width, 2);
    Array ids = random_ids(c.count, 2 * c.rows, 3);
    if (c.count > 0) ids.set(0, -5);
    std::vector<double> expected(c.rows * c.width);
    for (int64_t i = 0; c.accumulate && i < start.size(); ++i) expected[i] = start[i];
    for (int64_t i = 0; i < x.size(); ++i) {
      const int64_t row = static_cast<int64_t>(ids[i / c.width]) - c.first_id;
      if (row >= 0 && row < c.rows) expected[row * c.width + i % c.width] += x[i];
    }
    expect_same_bits_for_any_threads(start, [&](ThreadPool& pool, Isa isa, Array& table) {
      std::memcpy(table.data(), start.data(), start.size() * dtype_bytes(c.table));
      Array workspace(DType::kU8, scatter_rows_workspace_bytes(c.count));
      scatter_rows(pool, isa,
                   {.x = x.data(),
                    .ids = ids.ints(),
                    .table = table.data(),
                    .rows = c.rows,
                    .count = c.count,
                    .width = c.width,
                    .x_dtype = c.x,
                    .table_dtype = c.table,
                    .first_id = c.first_id,
                    .accumulate = c.accumulate},
                   workspace.data());
      expect_close(table, expected, "scatter");
    });
  }
}

TEST(rows, top_k_is_sorted_and_stable) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t n : {1, 8, 60, 257, 5000}) {
      for (int64_t k : {int64_t{1}, int64_t{2}, int64_t{8}, n}) {
        if (k > n || k > 300) continue;
        const int64_t rows = 7;
        Array x = random_array(dtype, rows * n, 1);
        for (int64_t i = 0; i < x.size(); i += 3) x.set(i, std::round(x[i]));  // ties
        if (n > 50) x.set(40, std::nan("")), x.set(45, std::nan("")), x.set(n + 3, -INFINITY), x.set(n + 9, INFINITY);
        for_each_machine([&](ThreadPool& pool, Isa isa) {
          Array values(dtype, rows * k), indices(DType::kI32, rows * k), best(DType::kI32, rows);
          top_k(pool, isa,
                {.x = x.data(), .values = values.data(), .indices = indices.ints(), .rows = rows, .n = n, .k = k, .dtype = dtype});
          argmax_rows(pool, isa, dtype, x.data(), rows, n, best.ints());
          for (int64_t r = 0; r < rows; ++r) {
            std::vector<int64_t> order(n);
            std::iota(order.begin(), order.end(), 0);
            const auto key = [&](int64_t i) { return std::isnan(x[r * n + i]) ? std::pair{1, 0.0} : std::pair{0, x[r * n + i]}; };
            std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) > key(b); });
            for (int64_t i = 0; i < k; ++i) {
              EXPECT_EQ(indices[r * k + i], order[i]);
              EXPECT(values[r * k + i] == x[r * n + order[i]] || std::isnan(values[r * k + i]));
            }
            EXPECT_EQ(best[r], order[0]);
          }
        });
      }
    }
  }
}

TEST(rows, top_more_than_there_are_is_an_internal_error) {
  ThreadPool pool(1);
  EXPECT_ERROR(
      InternalError,
      { top_k(pool, Isa::kAvx2, {.x = nullptr, .values = nullptr, .indices = nullptr, .rows = 1, .n = 3, .k = 4, .dtype = DType::kF32}); },
      "top 4 of 3");
}

}  // namespace
}  // namespace mw
