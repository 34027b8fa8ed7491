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

}  // namespace
}  // namespace mw
