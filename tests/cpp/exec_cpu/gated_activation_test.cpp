#include "exec/cpu/kernels/gated_activation.h"

#include "arrays.h"

namespace mw {
namespace {

using namespace testing;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
struct Case {
  Activation activation;
  double (*f)(double);
};
const Case kCases[] = {
    {Activation::kSilu, [](double x) { return x * sigmoid(x); }},
    {Activation::kGeluTanh, [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
    {Activation::kGeluErf, [](double x) { return 0.5 * x * std::erfc(-x * M_SQRT1_2); }},
    {Activation::kRelu, [](double x) { return x > 0 ? x : 0; }},
};

TEST(gated_activation, forward_and_gradient) {
  for (const Case& c : kCases) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      for (int64_t n : {1, 31, 1000, 70001}) {
        const Array gate = random_array(dtype, n, 1, 0, 3), up = random_array(dtype, n, 2), dy = random_array(dtype, n, 3);
        std::vector<double> y, dgate, dup;
        for (int64_t i = 0; i < n; ++i) {
          const double slope = (c.f(gate[i] + 1e-6) - c.f(gate[i] - 1e-6)) / 2e-6;
          y.push_back(c.f(gate[i]) * up[i]);
          dgate.push_back(dy[i] * up[i] * slope);
          dup.push_back(dy[i] * c.f(gate[i]));
        }
        for_each_machine([&](ThreadPool& pool, Isa isa) {
          Array out(dtype, n), dg = gate.copy(), du = up.copy();
          gated_activation(pool, isa, c.activation, dtype, gate.data(), up.data(), out.data(), n);
          gated_activation_backward(pool, isa, c.activation, dtype, dg.data(), du.data(), dy.data(), dg.data(), du.data(), n);  // in place
          expect_close(out, y, "y");
          expect_close(dg, dgate, "dgate");
          expect_close(du, dup, "dup");
        });
      }
    }
  }
}

TEST(gated_activation, clamped_swiglu) {
  const SwigluClamp clamp{1.75f, 1.702f};
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t n : {1, 31, 1000, 70001}) {
      const Array gate = random_array(dtype, n, 1, 0, 2), up = random_array(dtype, n, 2, 0, 2), dy = random_array(dtype, n, 3);
      std::vector<double> y, dgate, dup;
      for (int64_t i = 0; i < n; ++i) {
        const double g = std::min(gate[i], 1.75), u = std::clamp(up[i], -1.75, 1.75), s = sigmoid(static_cast<double>(clamp.alpha) * g);
        y.push_back((u + 1) * g * s);
        dgate.push_back(gate[i] <= 1.75 ? dy[i] * (u + 1) * s * (1 + static_cast<double>(clamp.alpha) * g * (1 - s)) : 0);
        dup.push_back(std::abs(up[i]) <= 1.75 ? dy[i] * g * s : 0);
      }
      for_each_machine([&](ThreadPool& pool, Isa isa) {
        Array out = gate.copy(), dg = gate.copy(), du = up.copy();
        clamped_swiglu(pool, isa, clamp, dtype, out.data(), up.data(), out.data(), n);  // in place
        clamped_swiglu_backward(pool, isa, clamp, dtype, dg.data(), du.data(), dy.data(), dg.data(), du.data(), n);
        expect_close(out, y, "y");
        expect_close(dg, dgate, "dgate");
        expect_close(du, dup, "dup");
      });
    }
  }
}

TEST(gated_activation, clamped_swiglu_keeps_nan) {
  for_each_machine([&](ThreadPool& pool, Isa isa) {
    Array gate(DType::kF32, 2), up(DType::kF32, 2), y(DType::kF32, 2);
    gate.set(0, NAN), gate.set(1, 1), up.set(0, 1), up.set(1, NAN);
    clamped_swiglu(pool, isa, {7, 1.702f}, DType::kF32, gate.data(), up.data(), y.data(), 2);
    EXPECT(std::isnan(y[0]) && std::isnan(y[1]));
  });
}

}  // namespace
}  // namespace mw
