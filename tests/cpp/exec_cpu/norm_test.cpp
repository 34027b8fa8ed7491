#include "exec/cpu/kernels/norm.h"

#include "arrays.h"
#include "base/error.h"

namespace mw {
namespace {

using namespace testing;

struct Case {
  int64_t rows, n;
  DType dtype, weight_dtype;
  bool offset_one = false;
  bool strided = false;  // x and dx lie in an array of twice the width, two rows of three heads
};
const Case kCases[] = {
    {1, 3, DType::kF32, DType::kF32},
    {5, 288, DType::kF32, DType::kF32},
    {7, 33, DType::kF32, DType::kF32, true},
    {300, 64, DType::kBF16, DType::kBF16},
    {9, 767, DType::kBF16, DType::kF32},
    {3, 4099, DType::kF32, DType::kBF16},
    {6, 48, DType::kF32, DType::kF32, false, true},
    {6, 40, DType::kBF16, DType::kBF16, true, true},
    {4000, 24, DType::kF32, DType::kF32},
};

int64_t place_of(const Case& c, int64_t row) { return c.strided ? row / 3 * 6 * c.n + row % 3 * c.n : row * c.n; }
RowPlaces places_of(const Case& c) { return c.strided ? RowPlaces{3, 6 * c.n, c.n} : RowPlaces{}; }
int64_t size_of(const Case& c) { return c.rows * c.n * (c.strided ? 2 : 1); }

// Forward and gradients in double.
struct Expected {
  std::vector<double> y, dx, dw, db;
};
Expected naive(const Case& c, bool centered, const Array& x, const Array& w, const Array* b, const Array& dy, double eps) {
  Expected e{std::vector<double>(c.rows * c.n), std::vector<double>(size_of(c)), std::vector<double>(c.n), std::vector<double>(c.n)};
  for (int64_t r = 0; r < c.rows; ++r) {
    const int64_t at = place_of(c, r);
    double mean = 0, square = 0, mean_g = 0, mean_gh = 0;
    for (int64_t i = 0; i < c.n; ++i) mean += x[at + i] / c.n;
    if (!centered) mean = 0;
    for (int64_t i = 0; i < c.n; ++i) square += (x[at + i] - mean) * (x[at + i] - mean) / c.n;
    const double scale = 1 / std::sqrt(square + eps);
    const auto weight = [&](int64_t i) { return w[i] + (c.offset_one ? 1 : 0); };
    for (int64_t i = 0; i < c.n; ++i) {
      const double h = (x[at + i] - mean) * scale, d = dy[r * c.n + i];
      e.y[r * c.n + i] = h * weight(i) + (b != nullptr ? (*b)[i] : 0);
      e.dw[i] += d * h;
      e.db[i] += d;
      mean_g += d * weight(i) / c.n;
      mean_gh += d * weight(i) * h / c.n;
    }
    for (int64_t i = 0; i < c.n; ++i) {
      const double h = (x[at + i] - mean) * scale;
      e.dx[at + i] = scale * (dy[r * c.n + i] * weight(i) - (centered ? mean_g : 0) - h * mean_gh);
    }
  }
  return e;
}

void check(bool centered) {
  for (const Case& c : kCases) {
    if (centered && c.offset_one) continue;
    const std::string what = std::to_string(c.rows) + " x " + std::to_string(c.n);
    const Array x = random_array(c.dtype, size_of(c), 1, centered ? 1.0 : 0.0), w = random_array(c.weight_dtype, c.n, 2, 1.0),
                b = random_array(c.weight_dtype, c.n, 3), dy = random_array(c.dtype, c.rows * c.n, 4);
    const Expected expected = naive(c, centered, x, w, centered ? &b : nullptr, dy, 1e-5);
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array y(c.dtype, c.rows * c.n), dx(c.dtype, size_of(c)), dw(DType::kF32, c.n), db(DType::kF32, c.n);
      const NormCall forward{.x = x.data(),
                             .weight = w.data(),
                             .bias = centered ? b.data() : nullptr,
                             .y = y.data(),
                             .rows = c.rows,
                             .n = c.n,
                             .dtype = c.dtype,
                             .weight_dtype = c.weight_dtype,
                             .eps = 1e-5f,
                             .offset_one = c.offset_one,
                             .x_places = places_of(c)};
      NormGradientCall back{.x = x.data(),
                            .weight = w.data(),
                            .dy = dy.data(),
                            .dx = dx.data(),
                            .dweight = dw.data(),
                            .dbias = centered ? db.data() : nullptr,
                            .rows = c.rows,
                            .n = c.n,
                            .dtype = c.dtype,
                            .weight_dtype = c.weight_dtype,
                            .eps = 1e-5f,
                            .offset_one = c.offset_one,
                            .x_places = places_of(c),
                            .dx_places = places_of(c)};
      Array workspace(DType::kU8, norm_backward_workspace_bytes(c.rows, c.n));
      centered ? layer_norm(pool, isa, forward) : rms_norm(pool, isa, forward);
      expect_close(y, expected.y, what + " y");
      const auto run_backward = centered ? layer_norm_backward : rms_norm_backward;
      run_backward(pool, isa, back, workspace.data());
      expect_close(dx, expected.dx, what + " dx");
      expect_close(dw, expected.dw, what + " dw");
      if (centered) expect_close(db, expected.db, what + " db");
      back.accumulate = true;
      run_backward(pool, isa, back, workspace.data());
      std::vector<double> twice = expected.dw;
      for (double& v : twice) v *= 2;
      expect_close(dw, twice, what + " dw added");
      Array narrow(DType::kBF16, c.n);
      back.accumulate = false, back.dweight = narrow.data(), back.dbias = nullptr, back.dweight_dtype = DType::kBF16;
      run_backward(pool, isa, back, workspace.data());
      expect_close(narrow, expected.dw, what + " bf16 dw");
    });
  }
}

TEST(norm, rms_forward_and_backward) { check(false); }
TEST(norm, layer_forward_and_backward) { check(true); }

// A weight of 1 in all but its reading.
TEST(norm, rms_without_a_weight) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t rows = 70, n = 77;
    const Array x = random_array(dtype, rows * n, 1), dy = random_array(dtype, rows * n, 2);
    Array one(dtype, n);
    for (int64_t i = 0; i < n; ++i) one.set(i, 1);
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array workspace(DType::kU8, norm_backward_workspace_bytes(rows, n));
      Array y[2] = {Array(dtype, rows * n), Array(dtype, rows * n)}, dx[2] = {Array(dtype, rows * n), Array(dtype, rows * n)};
      for (const bool weighted : {false, true}) {
        const void* const weight = weighted ? one.data() : nullptr;
        rms_norm(pool, isa,
                 {.x = x.data(),
                  .weight = weight,
                  .y = y[weighted].data(),
                  .rows = rows,
                  .n = n,
                  .dtype = dtype,
                  .weight_dtype = dtype,
                  .eps = 1e-5f});
        rms_norm_backward(pool, isa,
                          {.x = x.data(),
                           .weight = weight,
                           .dy = dy.data(),
                           .dx = dx[weighted].data(),
                           .dweight = nullptr,
                           .rows = rows,
                           .n = n,
                           .dtype = dtype,
                           .weight_dtype = dtype,
                           .eps = 1e-5f},
                          weighted ? workspace.data() : nullptr);
      }
      EXPECT(y[0].same_bits(y[1]) && dx[0].same_bits(dx[1]));
    });
  }
}

// The rounding of transformers' Llama: normalised, rounded, multiplied, rounded.
TEST(norm, rms_rounds_before_the_weight) {
  const Array x = random_array(DType::kBF16, 256, 1), w = random_array(DType::kBF16, 256, 2, 1.0);
  float square = 0;
  for (int i = 0; i < 256; ++i) square += static_cast<float>(x[i] * x[i]);
  const double scale = 1 / std::sqrt(square / 256 + 1e-5f);
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array y(DType::kBF16, 256);
    rms_norm(pool, isa,
             {.x = x.data(),
              .weight = w.data(),
              .y = y.data(),
              .rows = 1,
              .n = 256,
              .dtype = DType::kBF16,
              .weight_dtype = DType::kBF16,
              .eps = 1e-5f});
    int different = 0;
    for (int i = 0; i < 256; ++i) {
      const float normal = to_float(to_bf16(static_cast<float>(x[i] * scale)));
      different += y[i] != to_float(to_bf16(normal * static_cast<float>(w[i])));
    }
    EXPECT(different <= 1);
  });
}

TEST(norm, in_place) {
  const Array x = random_array(DType::kF32, 10 * 100, 1), w = random_array(DType::kF32, 100, 2);
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array apart(DType::kF32, x.size()), same = x.copy();
    NormCall call{.x = x.data(),
                  .weight = w.data(),
                  .y = apart.data(),
                  .rows = 10,
                  .n = 100,
                  .dtype = DType::kF32,
                  .weight_dtype = DType::kF32,
                  .eps = 1e-5f};
    rms_norm(pool, isa, call);
    call.x = call.y = same.data();
    rms_norm(pool, isa, call);
    EXPECT(same.same_bits(apart));
  });
}

TEST(norm, weight_gradient_bits_do_not_depend_on_threads) {
  const int64_t rows = 1000, n = 200;
  const Array x = random_array(DType::kF32, rows * n, 1), dy = random_array(DType::kF32, rows * n, 2), w = random_array(DType::kF32, n, 3);
  expect_same_bits_for_any_threads(w, [&](ThreadPool& pool, Isa isa, Array& dw) {
    Array dx(DType::kF32, rows * n), workspace(DType::kU8, norm_backward_workspace_bytes(rows, n));
    rms_norm_backward(pool, isa,
                      {.x = x.data(),
                       .weight = w.data(),
                       .dy = dy.data(),
                       .dx = dx.data(),
                       .dweight = dw.data(),
                       .rows = rows,
                       .n = n,
                       .dtype = DType::kF32,
                       .weight_dtype = DType::kF32,
                       .eps = 1e-5f},
                      workspace.data());
  });
}

TEST(norm, integers_are_an_internal_error) {
  ThreadPool pool(1);
  EXPECT_ERROR(
      InternalError,
      {
        rms_norm(pool, Isa::kAvx2,
                 {.x = nullptr,
                  .weight = nullptr,
                  .y = nullptr,
                  .rows = 1,
                  .n = 1,
                  .dtype = DType::kI32,
                  .weight_dtype = DType::kF32,
                  .eps = 0});
      },
      "i32");
}

}  // namespace
}  // namespace mw
