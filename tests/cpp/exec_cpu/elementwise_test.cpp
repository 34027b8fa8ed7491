#include "exec/cpu/kernels/elementwise.h"

#include <limits>

#include "arrays.h"
#include "base/error.h"

namespace mw {
namespace {

using namespace testing;
using Op = ElementwiseOp;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct UnaryCase {
  const char* name;
  Op op;
  double (*f)(double);
  double tolerance;  // relative to each element's own size
  double low, high;
};
double gelu_tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
const UnaryCase kUnary[] = {
    {"neg", Op::kNeg, [](double x) { return -x; }, 0, -9, 9},
    {"exp", Op::kExp, [](double x) { return std::exp(x); }, 2e-7, -87, 88.7},
    {"log", Op::kLog, [](double x) { return std::log(x); }, 3e-7, 1e-38, 20},
    {"log near 1", Op::kLog, [](double x) { return std::log(x); }, 3e-7, 0.9, 1.1},
    {"sqrt", Op::kSqrt, [](double x) { return std::sqrt(x); }, 1e-7, 0, 9},
    {"rsqrt", Op::kRsqrt, [](double x) { return 1 / std::sqrt(x); }, 2e-7, 1e-3, 9},
    {"tanh", Op::kTanh, [](double x) { return std::tanh(x); }, 4e-7, -10, 10},
    {"tanh near 0", Op::kTanh, [](double x) { return std::tanh(x); }, 4e-7, -1e-3, 1e-3},
    {"sigmoid", Op::kSigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, 4e-7, -80, 30},
    {"silu", Op::kSilu, [](double x) { return x / (1 + std::exp(-x)); }, 4e-7, -80, 30},
    {"gelu_tanh", Op::kGeluTanh, gelu_tanh, 2e-6, -3, 9},
    {"gelu_erf", Op::kGeluErf, [](double x) { return 0.5 * x * std::erfc(-x * M_SQRT1_2); }, 5e-6, -8, 9},
    {"relu", Op::kRelu, [](double x) { return x > 0 ? x : 0; }, 0, -9, 9},
    {"square", Op::kSquare, [](double x) { return x * x; }, 1e-7, -9, 9},
    {"abs", Op::kAbs, [](double x) { return std::abs(x); }, 0, -9, 9},
    {"floor", Op::kFloor, [](double x) { return std::floor(x); }, 0, -9e4, 9e4},
    {"reciprocal", Op::kReciprocal, [](double x) { return 1 / x; }, 1e-7, 0.1, 9},
    {"sin", Op::kSin, [](double x) { return std::sin(x); }, 1.2e-7, -1e6, 1e6},
    {"cos", Op::kCos, [](double x) { return std::cos(x); }, 1.2e-7, -1e6, 1e6},
    {"sin of huge", Op::kSin, [](double x) { return std::sin(x); }, 1.2e-7, 1e14, 1e30},
    {"erf", Op::kErf, [](double x) { return std::erf(x); }, 5e-7, -5, 5},
    {"round_bf16", Op::kRoundBf16, [](double x) { return double{to_float(to_bf16(static_cast<float>(x)))}; }, 0, -9, 9},
    {"round_f16", Op::kRoundF16, [](double x) { return double{to_float(to_f16(static_cast<float>(x)))}; }, 0, -9, 9},
};

// Runs one op over dense arrays of one dim.
void run_one(ThreadPool& pool, Isa isa, Op op, std::initializer_list<const Array*> operands, Array& out) {
  const int64_t sizes[] = {out.size()};
  std::vector<ElementwiseInput> inputs;
  for (const Array* operand : operands) inputs.push_back({operand->data(), operand->dtype(), static_cast<uint8_t>(inputs.size()), {1}});
  const ElementwiseInstruction code[] = {{op, 9, 0, 1, 2}};
  const ElementwiseOutput outputs[] = {{out.data(), out.dtype(), 9}};
  run_elementwise(pool, isa, {sizes, inputs, code, outputs});
}

TEST(elementwise, unary_functions_are_accurate) {
  for (const UnaryCase& c : kUnary) {
    Array x(DType::kF32, 5003);
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, c.low + (c.high - c.low) * uniform_from(RandomStream(1, 0, c.name).word(i)));
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array y(DType::kF32, x.size());
      run_one(pool, isa, c.op, {&x}, y);
      for (int64_t i = 0; i < x.size(); ++i) {
        const double expected = c.f(x[i]);
        if (std::abs(y[i] - expected) > c.tolerance * std::abs(expected)) {
          fail(__FILE__, __LINE__, std::string(c.name) + "(" + show(x[i]) + ") is " + show(y[i]) + ", not " + show(expected));
        }
      }
    });
  }
}

TEST(elementwise, special_values) {
  struct Case {
    Op op;
    double x, y;
  };
  const Case cases[] = {{Op::kExp, kNan, kNan},        {Op::kExp, kInfinity, kInfinity},
                        {Op::kExp, -kInfinity, 0},     {Op::kExp, 200, kInfinity},
                        {Op::kExp, -200, 0},           {Op::kLog, 0, -kInfinity},
                        {Op::kLog, -1, kNan},          {Op::kLog, kInfinity, kInfinity},
                        {Op::kLog, kNan, kNan},        {Op::kTanh, kInfinity, 1},
                        {Op::kTanh, -kInfinity, -1},   {Op::kTanh, kNan, kNan},
                        {Op::kSigmoid, -kInfinity, 0}, {Op::kSigmoid, kInfinity, 1},
                        {Op::kSigmoid, kNan, kNan},    {Op::kErf, kInfinity, 1},
                        {Op::kErf, -kInfinity, -1},    {Op::kErf, kNan, kNan},
                        {Op::kRelu, kNan, kNan},       {Op::kSin, kInfinity, kNan},
                        {Op::kGeluErf, 50, 50},        {Op::kGeluTanh, 50, 50},
                        {Op::kGeluTanh, -50, 0},       {Op::kGeluErf, -50, 0},
                        {Op::kRsqrt, 0, kInfinity},    {Op::kSilu, -1000, 0},
                        {Op::kRoundBf16, kNan, kNan}};
  for (const Case& c : cases) {
    Array x(DType::kF32, 3), y(DType::kF32, 3);
    for (int i = 0; i < 3; ++i) x.set(i, c.x);
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      run_one(pool, isa, c.op, {&x}, y);
      expect_close(y, {c.y, c.y, c.y}, 1e-6, "op " + std::to_string(static_cast<int>(c.op)) + " of " + show(c.x));
    });
  }
}

TEST(elementwise, binary_functions) {
  struct Case {
    Op op;
    double (*f)(double, double);
  };
  const Case cases[] = {{Op::kAdd, [](double a, double b) { return a + b; }},
                        {Op::kSub, [](double a, double b) { return a - b; }},
                        {Op::kMul, [](double a, double b) { return a * b; }},
                        {Op::kDiv, [](double a, double b) { return a / b; }},
                        {Op::kMax, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNan : std::max(a, b); }},
                        {Op::kMin, [](double a, double b) { return std::isnan(a) || std::isnan(b) ? kNan : std::min(a, b); }},
                        {Op::kPow, [](double a, double b) { return std::pow(a, b); }}};
  Array a = random_array(DType::kF32, 1001, 1, 3.0), b = random_array(DType::kF32, 1001, 2);
  a.set(3, kNan), b.set(17, kNan);
  for (const Case& c : cases) {
    std::vector<double> expected;
    for (int64_t i = 0; i < a.size(); ++i) expected.push_back(c.f(a[i], b[i]));
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array y(DType::kF32, a.size());
      run_one(pool, isa, c.op, {&a, &b}, y);
      expect_close(y, expected, "op " + std::to_string(static_cast<int>(c.op)));
    });
  }
}

TEST(elementwise, comparisons_logic_and_integers) {
  struct Case {
    Op op;
    DType in, out;
    double (*f)(double, double);
  };
  using enum DType;
  const Case cases[] = {
      {Op::kEq, kF32, kU8, [](double a, double b) -> double { return a == b; }},
      {Op::kNe, kF32, kU8, [](double a, double b) -> double { return a != b; }},
      {Op::kLt, kF32, kU8, [](double a, double b) -> double { return a < b; }},
      {Op::kLe, kF32, kU8, [](double a, double b) -> double { return a <= b; }},
      {Op::kGt, kF32, kU8, [](double a, double b) -> double { return a > b; }},
      {Op::kGe, kF32, kI32, [](double a, double b) -> double { return a >= b; }},
      {Op::kIsFinite, kF32, kU8, [](double a, double) -> double { return std::isfinite(a); }},
      {Op::kToI32, kF32, kI32, [](double a, double) { return std::trunc(a); }},
      {Op::kLogicalNot, kU8, kU8, [](double a, double) -> double { return !a; }},
      {Op::kLogicalAnd, kU8, kU8, [](double a, double b) -> double { return a && b; }},
      {Op::kLogicalOr, kU8, kU8, [](double a, double b) -> double { return a || b; }},
      {Op::kAddI32, kI32, kI32, [](double a, double b) { return a + b; }},
      {Op::kSubI32, kI32, kI32, [](double a, double b) { return a - b; }},
      {Op::kMulI32, kI32, kI32, [](double a, double b) { return a * b; }},
      {Op::kMaxI32, kI32, kI32, [](double a, double b) { return std::max(a, b); }},
      {Op::kMinI32, kI32, kI32, [](double a, double b) { return std::min(a, b); }},
      {Op::kEqI32, kI32, kU8, [](double a, double b) -> double { return a == b; }},
      {Op::kNeI32, kI32, kU8, [](double a, double b) -> double { return a != b; }},
      {Op::kLtI32, kI32, kU8, [](double a, double b) -> double { return a < b; }},
      {Op::kLeI32, kI32, kU8, [](double a, double b) -> double { return a <= b; }},
      {Op::kGtI32, kI32, kU8, [](double a, double b) -> double { return a > b; }},
      {Op::kGeI32, kI32, kU8, [](double a, double b) -> double { return a >= b; }},
      {Op::kNegI32, kI32, kI32, [](double a, double) { return -a; }},
      {Op::kAbsI32, kI32, kI32, [](double a, double) { return std::abs(a); }},
      {Op::kToF32, kI32, kBF16, [](double a, double) { return a; }},
      {Op::kToU8, kI32, kU8, [](double a, double) { return a; }},
  };
  for (const Case& c : cases) {
    Array a = random_array(c.in, 777, 1), b = random_array(c.in, 777, 2);
    for (int64_t i = 0; i < 777; i += 5) a.set(i, b[i]);
    if (c.in == kU8) {
      for (int64_t i = 0; i < 777; ++i) a.set(i, i % 2), b.set(i, i / 2 % 2);
    }
    if (c.op == Op::kIsFinite) a.set(4, kInfinity), a.set(5, kNan), a.set(6, -kInfinity);
    std::vector<double> expected;
    for (int64_t i = 0; i < a.size(); ++i) expected.push_back(c.f(a[i], b[i]));
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array y(c.out, a.size());
      run_one(pool, isa, c.op, {&a, &b}, y);
      expect_close(y, expected, 0.0, "op " + std::to_string(static_cast<int>(c.op)));
    });
  }
}

// z = select(m, exp(x) * s + 2, b - y): every dtype and broadcast pattern at once, two outputs.
TEST(elementwise, chain_with_broadcasts_over_three_dims) {
  struct Shape {
    int64_t i, j, k;
  };
  for (const Shape s : {Shape{3, 5, 7}, Shape{1, 1, 1}, Shape{2, 3, 1000}, Shape{70, 40, 16}, Shape{4, 1, 33}, Shape{1, 600, 1}}) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const Array x = random_array(dtype, s.i * s.j * s.k, 1), y = random_array(dtype, s.k * s.i, 2), b = random_array(DType::kF32, s.j, 3),
                  scale = random_array(DType::kF32, 1, 4), mask = random_array(DType::kU8, s.i * s.k, 5);
      const int64_t sizes[] = {s.i, s.j, s.k};
      const ElementwiseInput inputs[] = {{x.data(), dtype, 0, {s.j * s.k, s.k, 1}},
                                         {y.data(), dtype, 1, {1, 0, s.i}},  // transposed
                                         {b.data(), DType::kF32, 2, {0, 1, 0}},
                                         {scale.data(), DType::kF32, 3, {0, 0, 0}},
                                         {mask.data(), DType::kU8, 4, {s.k, 0, 1}}};
      const ElementwiseInstruction code[] = {{Op::kConstant, 5, 0, 0, 0, 2.0f},
                                             {Op::kConstantI32, 10, 0, 0, 0, 0.0f, 5},
                                             {Op::kExp, 6, 0},
                                             {Op::kMul, 6, 6, 3},
                                             {Op::kAdd, 6, 6, 5},
                                             {Op::kSub, 7, 2, 1},
                                             {Op::kLtI32, 8, 4, 10},
                                             {Op::kSelect, 9, 8, 6, 7}};
      std::vector<double> expected, conditions;
      for (int64_t i = 0; i < s.i; ++i) {
        for (int64_t j = 0; j < s.j; ++j) {
          for (int64_t k = 0; k < s.k; ++k) {
            conditions.push_back(mask[i * s.k + k] < 5);
            expected.push_back(conditions.back() != 0 ? std::exp(x[(i * s.j + j) * s.k + k]) * scale[0] + 2 : b[j] - y[k * s.i + i]);
          }
        }
      }
      for_each_machine([&](ThreadPool& pool, Isa isa) {
        Array z(dtype, x.size()), condition(DType::kU8, x.size());
        const ElementwiseOutput outputs[] = {{z.data(), dtype, 9}, {condition.data(), DType::kU8, 8}};
        run_elementwise(pool, isa, {sizes, inputs, code, outputs});
        expect_close(z, expected, "chain");
        expect_close(condition, conditions, "condition");
      });
    }
  }
}

TEST(elementwise, in_place_and_direct_output) {
  for (int64_t n : {1, 15, 512, 5000, 100000}) {
    const Array x = random_array(DType::kF32, n, 1), y = random_array(DType::kF32, n, 2);
    std::vector<double> expected;
    for (int64_t i = 0; i < n; ++i) expected.push_back((x[i] + y[i]) * x[i]);
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array z(DType::kF32, n);
      std::memcpy(z.data(), x.data(), n * 4);
      const int64_t sizes[] = {n};
      const ElementwiseInput inputs[] = {{z.data(), DType::kF32, 0, {1}}, {y.data(), DType::kF32, 1, {1}}};
      const ElementwiseInstruction code[] = {{Op::kAdd, 2, 0, 1}, {Op::kMul, 2, 2, 0}};
      const ElementwiseOutput outputs[] = {{z.data(), DType::kF32, 2}};
      run_elementwise(pool, isa, {sizes, inputs, code, outputs});
      expect_close(z, expected, "in place");
    });
  }
}

TEST(elementwise, casts_without_code) {
  const Array x = random_array(DType::kF32, 4099, 1);
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    Array expected(dtype, x.size());
    for (int64_t i = 0; i < x.size(); ++i) expected.set(i, x[i]);
    for_each_machine([&](ThreadPool& pool, Isa isa) {
      Array y(dtype, x.size());
      const int64_t sizes[] = {x.size()};
      const ElementwiseInput inputs[] = {{x.data(), DType::kF32, 0, {1}}};
      const ElementwiseOutput outputs[] = {{y.data(), dtype, 0}};
      run_elementwise(pool, isa, {sizes, inputs, {}, outputs});
      EXPECT(y.same_bits(expected));
    });
  }
}

TEST(elementwise, bits_do_not_depend_on_threads) {
  const Array x = random_array(DType::kF32, 200001, 1);
  expect_same_bits_for_any_threads(x, [&](ThreadPool& pool, Isa isa, Array& y) { run_one(pool, isa, Op::kGeluTanh, {&x}, y); });
}

TEST(elementwise, bad_calls_are_internal_errors) {
  Array x(DType::kF32, 4);
  const int64_t sizes[] = {4};
  const ElementwiseInput doubles[] = {{x.data(), DType::kF64, 0, {1}}}, far[] = {{x.data(), DType::kF32, 99, {1}}};
  const ElementwiseOutput outputs[] = {{x.data(), DType::kF32, 0}};
  ThreadPool pool(1);
  EXPECT_ERROR(InternalError, { run_elementwise(pool, Isa::kAvx2, {sizes, doubles, {}, outputs}); }, "f64");
  EXPECT_ERROR(InternalError, { run_elementwise(pool, Isa::kAvx2, {sizes, far, {}, outputs}); }, "99");
}

}  // namespace
}  // namespace mw
