#include "exec/cpu/kernels/reduce.h"

#include <limits>

#include "arrays.h"
#include "base/error.h"

namespace mw {
namespace {

using namespace testing;

// A dense array; the bits of `mask` say which dims are summed away.
ReduceCall call_of(ReduceOp op, const Array& x, Array& y, const std::vector<int64_t>& sizes, int mask) {
  ReduceCall call{.op = op,
                  .x = x.data(),
                  .dtype = x.dtype(),
                  .y = y.data(),
                  .y_dtype = y.dtype(),
                  .kept_sizes = {},
                  .kept_strides = {},
                  .kept_rank = 0,
                  .reduced_sizes = {},
                  .reduced_strides = {},
                  .reduced_rank = 0};
  int64_t stride = x.size();
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    stride /= sizes[dim];
    if (mask >> dim & 1) {
      call.reduced_sizes[call.reduced_rank] = sizes[dim], call.reduced_strides[call.reduced_rank++] = stride;
    } else {
      call.kept_sizes[call.kept_rank] = sizes[dim], call.kept_strides[call.kept_rank++] = stride;
    }
  }
  return call;
}
int64_t outputs_of(const std::vector<int64_t>& sizes, int mask) {
  int64_t count = 1;
  for (size_t dim = 0; dim < sizes.size(); ++dim) count *= mask >> dim & 1 ? 1 : sizes[dim];
  return count;
}

std::vector<double> naive(ReduceOp op, const Array& x, const std::vector<int64_t>& sizes, int mask) {
  const double start = op == ReduceOp::kMax ? -INFINITY : op == ReduceOp::kMin ? INFINITY : 0.0;
  const int64_t outputs = outputs_of(sizes, mask);
  std::vector<double> y(outputs, start);
  for (int64_t i = 0; i < x.size(); ++i) {
    int64_t rest = i, place = 0, step = 1;
    for (int dim = static_cast<int>(sizes.size()) - 1; dim >= 0; --dim) {
      if (!(mask >> dim & 1)) place += rest % sizes[dim] * step, step *= sizes[dim];
      rest /= sizes[dim];
    }
    double& v = y[place];
    const bool nan = std::isnan(v) || std::isnan(x[i]);
    v = nan ? std::nan("") : op == ReduceOp::kMax ? std::max(v, x[i]) : op == ReduceOp::kMin ? std::min(v, x[i]) : v + x[i];
  }
  if (op == ReduceOp::kMean) {
    for (double& v : y) v *= static_cast<double>(outputs) / static_cast<double>(x.size());
  }
  return y;
}

const std::vector<int64_t> kShapes[] = {{1},         {5},       {100},       {200000},    {7, 33},
                                        {1000, 300}, {3, 4, 5}, {2, 70, 65}, {70, 3, 40}, {2, 3, 4, 5, 6, 7},
                                        {4000, 9},   {9, 4000}, {20, 1, 513}};

TEST(reduce, any_dims_of_a_dense_array) {
  for (const auto& sizes : kShapes) {
    int64_t count = 1;
    for (int64_t size : sizes) count *= size;
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kI32, DType::kU8}) {
      Array x = random_array(dtype, count, 1, 0.5);
      for (int mask = 0; mask < 1 << sizes.size(); ++mask) {
        for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMean, ReduceOp::kMax, ReduceOp::kMin}) {
          const std::vector<double> expected = naive(op, x, sizes, mask);
          for (Isa isa : available_isas()) {
            static ThreadPool pool(3);
            Array y(DType::kF32, outputs_of(sizes, mask));
            const ReduceCall call = call_of(op, x, y, sizes, mask);
            Array workspace(DType::kU8, reduce_workspace_bytes(call));
            reduce(pool, isa, call, workspace.data());
            expect_close(y, expected, 1e-6, "mask " + std::to_string(mask) + " of " + std::to_string(sizes.size()) + " dims");
          }
        }
      }
    }
  }
}

TEST(reduce, transposed_and_broadcast_inputs) {
  const Array x = random_array(DType::kF32, 40 * 50, 1);
  ThreadPool pool(2);
  for (Isa isa : available_isas()) {
    Array y(DType::kF32, 50), all(DType::kBF16, 1);
    // x is [j = 40, i = 50] in memory; keep i at stride 1, or keep i at stride 50.
    ReduceCall call{.op = ReduceOp::kSum,
                    .x = x.data(),
                    .dtype = DType::kF32,
                    .y = y.data(),
                    .y_dtype = DType::kF32,
                    .kept_sizes = {40},
                    .kept_strides = {50},
                    .kept_rank = 1,
                    .reduced_sizes = {25, 2},
                    .reduced_strides = {2, 1},
                    .reduced_rank = 2};
    reduce(pool, isa, call, nullptr);
    for (int64_t j = 0; j < 40; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < 50; ++i) sum += x[j * 50 + i];
      EXPECT_NEAR(y[j], sum, 1e-5);
    }
    ReduceCall repeated{.op = ReduceOp::kSum,
                        .x = x.data(),
                        .dtype = DType::kF32,
                        .y = all.data(),
                        .y_dtype = DType::kBF16,
                        .kept_sizes = {},
                        .kept_strides = {},
                        .kept_rank = 0,
                        .reduced_sizes = {10},
                        .reduced_strides = {0},
                        .reduced_rank = 1};
    reduce(pool, isa, repeated, nullptr);
    EXPECT_NEAR(all[0], 10 * x[0], 1e-2 * std::abs(10 * x[0]));
  }
}

TEST(reduce, nan_spreads_through_max_and_min) {
  Array x = random_array(DType::kF32, 300 * 40, 1);
  x.set(17, std::nan("")), x.set(7777, std::nan(""));
  for (int mask : {1, 2, 3}) {
    for (ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin}) {
      for_each_machine([&](ThreadPool& pool, Isa isa) {
        Array y(DType::kF32, outputs_of({300, 40}, mask));
        const ReduceCall call = call_of(op, x, y, {300, 40}, mask);
        Array workspace(DType::kU8, reduce_workspace_bytes(call));
        reduce(pool, isa, call, workspace.data());
        expect_close(y, naive(op, x, {300, 40}, mask), 0.0, "max or min");
      });
    }
  }
}

// Sums of many positive terms keep their relative error.
TEST(reduce, long_sums_stay_accurate) {
  Array x = random_array(DType::kF32, int64_t{1} << 21, 1, 1.0, 0.1);
  for (int mask : {1, 2, 3}) {
    const std::vector<int64_t> sizes = {int64_t{1} << 13, 256};
    const std::vector<double> expected = naive(ReduceOp::kSum, x, sizes, mask);
    const Array like(DType::kF32, outputs_of(sizes, mask));
    expect_same_bits_for_any_threads(like, [&](ThreadPool& pool, Isa isa, Array& y) {
      const ReduceCall call = call_of(ReduceOp::kSum, x, y, sizes, mask);
      Array workspace(DType::kU8, reduce_workspace_bytes(call));
      reduce(pool, isa, call, workspace.data());
      for (int64_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 3e-7 * expected[i]);
    });
  }
}

TEST(reduce, doubles_are_an_internal_error) {
  Array x(DType::kF64, 4), y(DType::kF32, 1);
  ThreadPool pool(1);
  EXPECT_ERROR(InternalError, { reduce(pool, Isa::kAvx2, call_of(ReduceOp::kSum, x, y, {4}, 1), nullptr); }, "f64");
}

}  // namespace
}  // namespace mw
