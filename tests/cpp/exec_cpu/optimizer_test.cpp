#include "exec/cpu/kernels/optimizer.h"

#include "arrays.h"

namespace mw {
namespace {

using namespace testing;

constexpr double kLr = 1e-2, kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-8, kDecay = 0.1, kScale = 0.5;

TEST(optimizer, three_steps_of_adamw) {
  for (DType gradient_dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t n : {1, 37, 70001}) {
      for_each_machine([&](ThreadPool& pool, Isa isa) {
        Array w = random_array(DType::kF32, n, 1), m(DType::kF32, n), v(DType::kF32, n), copy(DType::kBF16, n);
        std::vector<double> ew(n), em(n), ev(n);
        for (int64_t i = 0; i < n; ++i) ew[i] = w[i];
        for (int step = 1; step <= 3; ++step) {
          const Array g = random_array(gradient_dtype, n, 10 + step);
          const float lr = kLr, scale = kScale, c1 = 1 - std::pow(kBeta1, step), c2 = 1 - std::pow(kBeta2, step);
          for (int64_t i = 0; i < n; ++i) {
            const double gradient = g[i] * kScale;
            ew[i] -= kLr * kDecay * ew[i];
            em[i] = kBeta1 * em[i] + (1 - kBeta1) * gradient;
            ev[i] = kBeta2 * ev[i] + (1 - kBeta2) * gradient * gradient;
            ew[i] -= kLr / c1 * em[i] / (std::sqrt(ev[i]) / std::sqrt(c2) + kEps);
          }
          adamw(pool, isa,
                {.weight = w.floats(),
                 .gradient = g.data(),
                 .gradient_dtype = gradient_dtype,
                 .first_moment = m.floats(),
                 .second_moment = v.floats(),
                 .copy = step == 3 ? copy.halves() : nullptr,
                 .count = n,
                 .lr = &lr,
                 .gradient_scale = &scale,
                 .correction1 = &c1,
                 .correction2 = &c2,
                 .beta1 = kBeta1,
                 .beta2 = kBeta2,
                 .eps = kEps,
                 .weight_decay = kDecay});
        }
        expect_close(w, ew, 1e-6, "weight");
        expect_close(m, em, 1e-6, "first moment");
        expect_close(v, ev, 1e-6, "second moment");
        for (int64_t i = 0; i < n; ++i) EXPECT_EQ(copy[i], to_float(to_bf16(w.floats()[i])));
      });
    }
  }
}

TEST(optimizer, adamw_out_of_place_equals_in_place) {
  const int64_t n = 1001;
  const float lr = 0.1f, c1 = 0.1f, c2 = 0.05f;
  const Array g = random_array(DType::kF32, n, 2);
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array w = random_array(DType::kF32, n, 1), m = random_array(DType::kF32, n, 3), v = random_array(DType::kF32, n, 4, 3.0, 0.1);
    Array nw(DType::kF32, n), nm(DType::kF32, n), nv(DType::kF32, n);
    AdamWCall call{.weight = w.floats(),
                   .gradient = g.data(),
                   .first_moment = m.floats(),
                   .second_moment = v.floats(),
                   .new_weight = nw.floats(),
                   .new_first_moment = nm.floats(),
                   .new_second_moment = nv.floats(),
                   .count = n,
                   .lr = &lr,
                   .correction1 = &c1,
                   .correction2 = &c2,
                   .beta1 = 0.9f,
                   .beta2 = 0.95f,
                   .eps = 1e-8f,
                   .weight_decay = 0.0f};
    adamw(pool, isa, call);
    call.new_weight = call.new_first_moment = call.new_second_moment = nullptr;
    adamw(pool, isa, call);
    EXPECT(w.same_bits(nw) && m.same_bits(nm) && v.same_bits(nv));
  });
}

TEST(optimizer, sgd_with_and_without_momentum) {
  const int64_t n = 1003;
  const float lr = 0.1f, scale = 0.5f;
  for (bool momentum : {false, true}) {
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array w = random_array(DType::kF32, n, 1), buffer(DType::kF32, n), copy(DType::kBF16, n);
      std::vector<double> ew(n), eb(n);
      for (int64_t i = 0; i < n; ++i) ew[i] = w[i];
      for (int step = 0; step < 3; ++step) {
        const Array g = random_array(DType::kF32, n, 10 + step);
        for (int64_t i = 0; i < n; ++i) {
          eb[i] = (momentum ? 0.9 * eb[i] : 0) + g[i] * 0.5 + 0.01 * ew[i];
          ew[i] -= 0.1 * eb[i];
        }
        sgd(pool, isa,
            {.weight = w.floats(),
             .gradient = g.data(),
             .buffer = momentum ? buffer.floats() : nullptr,
             .copy = copy.halves(),
             .count = n,
             .lr = &lr,
             .gradient_scale = &scale,
             .momentum = 0.9f,
             .weight_decay = 0.01f});
      }
      expect_close(w, ew, 1e-6, "weight");
      if (momentum) expect_close(buffer, eb, 1e-6, "buffer");
      for (int64_t i = 0; i < n; ++i) EXPECT_EQ(copy[i], to_float(to_bf16(w.floats()[i])));
    });
  }
}

TEST(optimizer, sum_of_squares_over_a_list) {
  const Array a = random_array(DType::kF32, 200003, 1), b = random_array(DType::kBF16, 70001, 2), c = random_array(DType::kF32, 1, 3);
  const Array empty(DType::kF32, 0);
  const SquaredArray arrays[] = {
      {a.data(), DType::kF32, a.size()}, {empty.data(), DType::kF32, 0}, {b.data(), DType::kBF16, b.size()}, {c.data(), DType::kF32, 1}};
  double expected = 0;
  for (const Array* array : {&a, &b, &c}) {
    for (int64_t i = 0; i < array->size(); ++i) expected += (*array)[i] * (*array)[i];
  }
  const Array like(DType::kF32, 1);
  const auto compute = [&](ThreadPool& pool, Isa isa, Array& out) {
    Array workspace(DType::kU8, sum_of_squares_workspace_bytes(arrays));
    sum_of_squares(pool, isa, arrays, workspace.data(), out.floats());
    EXPECT_NEAR(out[0], expected, 1e-7 * expected);
  };
  expect_same_bits_for_any_threads(like, compute);
}

}  // namespace
}  // namespace mw
