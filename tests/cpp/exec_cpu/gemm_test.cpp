#include "exec/cpu/gemm.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cstring>

#include "exec/cpu/gemm_tiles.h"
#include "kernel_testing.h"

namespace mw {
namespace {

using testing::Tensor;
using testing::Workspace;

constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;

// An operand of rows x cols in one of four layouts, with its tensor.
struct Operand {
  Tensor tensor;
  int64_t row, col, batch;
};

Operand make_operand(int layout, DType type, int64_t rows, int64_t cols, int64_t batches, uint64_t seed) {
  int64_t row = 1, col = 1, size = 0;
  switch (layout) {
    case 0:
      row = cols, col = 1, size = rows * cols;
      break;  // row-major
    case 1:
      row = 1, col = rows, size = rows * cols;
      break;  // column-major
    case 2:
      row = cols + 5, col = 1, size = rows * (cols + 5);
      break;  // padded rows
    default:
      row = 2 * cols + 1, col = 2, size = rows * (2 * cols + 1);  // neither contiguous
  }
  return {Tensor::random(type, std::max<int64_t>(1, size * batches), seed), row, col, size};
}

struct Case {
  int64_t m, n, k, batch;
  int a_layout, b_layout, c_layout;
  DType a, b, c;
  float alpha;
  bool accumulate;
};

std::string describe(const Case& t, Isa isa) {
  return concat_text("gemm ", isa_name(isa), " ", t.m, "x", t.n, "x", t.k, " batch ", t.batch, " layouts ", t.a_layout, t.b_layout,
                     t.c_layout, " ", dtype_name(t.a), " ", dtype_name(t.b), " ", dtype_name(t.c), " alpha ", t.alpha,
                     t.accumulate ? " accumulate" : "");
}

std::vector<char> run_case(const Case& t, Isa isa, int threads, bool check) {
  const Operand a = make_operand(t.a_layout, t.a, t.m, t.k, t.batch, 1), b = make_operand(t.b_layout, t.b, t.k, t.n, t.batch, 2);
  Operand c = make_operand(t.c_layout, t.c, t.m, t.n, t.batch, 3);
  const Gemm g{.m = t.m,
               .n = t.n,
               .k = t.k,
               .batch = t.batch,
               .a = {a.tensor.data(), t.a, a.row, a.col, a.batch},
               .b = {b.tensor.data(), t.b, b.row, b.col, b.batch},
               .c = {c.tensor.data(), t.c, c.row, c.col, c.batch},
               .alpha = t.alpha,
               .accumulate = t.accumulate};
  std::vector<double> expected = c.tensor.values;
  if (check) {
    for (int64_t z = 0; z < t.batch; ++z) {
      for (int64_t i = 0; i < t.m; ++i) {
        for (int64_t j = 0; j < t.n; ++j) {
          double sum = 0;
          for (int64_t k = 0; k < t.k; ++k) {
            sum += a.tensor.values[z * a.batch + i * a.row + k * a.col] * b.tensor.values[z * b.batch + k * b.row + j * b.col];
          }
          double& out = expected[z * c.batch + i * c.row + j * c.col];
          out = (t.accumulate ? out : 0.0) + t.alpha * sum;
        }
      }
    }
  }
  const GemmPlan plan = plan_gemm(g, isa);
  Workspace workspace(plan.workspace_bytes);
  std::fill_n(static_cast<char*>(workspace.data()), plan.workspace_bytes, '\xff');  // NaN: what is not packed may not be multiplied
  ThreadPool pool(threads);
  run_gemm(g, plan, workspace.data(), pool);
  if (check) testing::expect_close(c.tensor.loaded(), expected, testing::tolerance_of(t.c), describe(t, isa));
  return c.tensor.bytes;
}

const Case kCases[] = {
    {1, 1, 1, 1, 0, 0, 0, kF32, kF32, kF32, 1, false},       {8, 48, 16, 1, 0, 1, 0, kF32, kF32, kF32, 1, false},
    {13, 50, 37, 1, 0, 0, 0, kF32, kF32, kF32, 1, false},    {65, 97, 33, 1, 0, 1, 2, kF32, kF32, kF32, 1, true},
    {31, 64, 129, 1, 1, 0, 0, kF32, kF32, kF32, 1, false},   {64, 80, 700, 1, 1, 0, 0, kF32, kF32, kF32, 1, true},
    {17, 19, 23, 3, 2, 2, 2, kF32, kF32, kF32, 0.5f, true},  {17, 19, 23, 2, 3, 3, 0, kF32, kF32, kF32, 1, false},
    {40, 33, 21, 2, 0, 0, 1, kF32, kF32, kF32, 1, true},     {9, 112, 1300, 1, 0, 1, 0, kF32, kF32, kBF16, 1, false},
    {5, 16, 1, 1, 1, 1, 0, kF32, kF32, kF32, -2, false},     {12, 96, 64, 1, 0, 1, 0, kBF16, kBF16, kF32, 1, false},
    {23, 37, 41, 2, 0, 1, 0, kBF16, kBF16, kBF16, 1, false}, {23, 37, 41, 1, 0, 0, 0, kBF16, kBF16, kF32, 1, true},
    {70, 50, 1501, 1, 1, 0, 0, kBF16, kBF16, kF32, 1, true}, {29, 31, 15, 1, 3, 3, 2, kBF16, kBF16, kBF16, 2, true},
    {29, 31, 17, 1, 2, 1, 0, kBF16, kF32, kF32, 1, false},   {29, 48, 17, 1, 1, 0, 0, kF32, kBF16, kBF16, 1, false},
    {33, 65, 34, 1, 1, 1, 1, kBF16, kBF16, kBF16, 1, false}, {7, 144, 288, 1, 0, 1, 0, kF32, kF32, kF32, 1, false},
};

TEST(gemm, equals_naive_loops_at_every_isa) {
  for (Isa isa : available_isas()) {
    for (const Case& t : kCases) run_case(t, isa, 2, true);
  }
}

TEST(gemm, same_bits_for_any_number_of_threads) {
  const Case more[] = {{300, 200, 600, 1, 0, 1, 0, kF32, kF32, kF32, 1, false}, {200, 300, 600, 1, 1, 0, 0, kBF16, kBF16, kF32, 1, false}};
  for (Isa isa : available_isas()) {
    const auto check = [&](const Case& t) {
      const std::vector<char> one = run_case(t, isa, 1, false);
      for (int threads : {2, 3}) {
        if (run_case(t, isa, threads, false) != one) testing::fail(__FILE__, __LINE__, describe(t, isa) + ": bits depend on threads");
      }
    };
    for (const Case& t : kCases) check(t);
    for (const Case& t : more) check(t);
  }
}

TEST(gemm, bits_of_a_row_do_not_depend_on_the_number_of_rows) {
  for (Isa isa : available_isas()) {
    for (DType type : {kF32, kBF16}) {
      const int64_t n = 100, k = 1234;
      const std::vector<char> all = run_case({75, n, k, 1, 0, 1, 0, type, type, kF32, 1, false}, isa, 2, false);
      for (int64_t m : {1, 2, 7, 9, 40}) {
        const std::vector<char> some = run_case({m, n, k, 1, 0, 1, 0, type, type, kF32, 1, false}, isa, 1, false);
        EXPECT(std::memcmp(all.data(), some.data(), some.size()) == 0);
      }
    }
  }
}

TEST(gemm, equals_eigen) {
  const int64_t m = 123, n = 234, k = 345;
  const Tensor a = Tensor::random(kF32, m * k, 7), b = Tensor::random(kF32, n * k, 8);
  Tensor c(kF32, m * n);
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Matrix expected = Eigen::Map<const Matrix>(a.floats(), m, k) * Eigen::Map<const Matrix>(b.floats(), n, k).transpose();
  for (Isa isa : available_isas()) {
    const Gemm g{.m = m, .n = n, .k = k, .a = {a.data(), kF32, k, 1}, .b = {b.data(), kF32, 1, k}, .c = {c.data(), kF32, n, 1}};
    const GemmPlan plan = plan_gemm(g, isa);
    Workspace workspace(plan.workspace_bytes);
    ThreadPool pool(2);
    run_gemm(g, plan, workspace.data(), pool);
    testing::expect_close(c.loaded(), {expected.data(), expected.data() + m * n}, 1e-5, "eigen");
  }
}

TEST(gemm, empty_sizes) {
  for (Isa isa : available_isas()) {
    run_case({0, 5, 5, 1, 0, 0, 0, kF32, kF32, kF32, 1, false}, isa, 2, true);
    run_case({5, 0, 5, 1, 0, 0, 0, kF32, kF32, kF32, 1, false}, isa, 2, true);
    run_case({5, 5, 0, 2, 0, 0, 0, kF32, kF32, kF32, 1, false}, isa, 2, true);
    run_case({5, 5, 0, 1, 0, 0, 1, kF32, kF32, kBF16, 1, true}, isa, 2, true);
  }
}

TEST(gemm, one_lane_operand_for_a_whole_batch) {
  const int64_t m = 11, n = 52, k = 30, batch = 3;
  const Tensor a = Tensor::random(kF32, batch * m * k, 1), b = Tensor::random(kF32, n * k, 2);
  Tensor c(kF32, batch * m * n), each(kF32, batch * m * n);
  const Isa isa = chosen_isa();
  ThreadPool pool(2);
  Gemm g{.m = m,
         .n = n,
         .k = k,
         .batch = batch,
         .a = {a.data(), kF32, k, 1, m * k},
         .b = {b.data(), kF32, 1, k, 0},
         .c = {c.data(), kF32, n, 1, m * n}};
  const GemmPlan plan = plan_gemm(g, isa);
  Workspace workspace(plan.workspace_bytes);
  run_gemm(g, plan, workspace.data(), pool);
  Gemm flat{.m = batch * m, .n = n, .k = k, .a = {a.data(), kF32, k, 1}, .b = {b.data(), kF32, 1, k}, .c = {each.data(), kF32, n, 1}};
  const GemmPlan flat_plan = plan_gemm(flat, isa);
  Workspace flat_workspace(flat_plan.workspace_bytes);
  run_gemm(flat, flat_plan, flat_workspace.data(), pool);
  EXPECT(c.bytes == each.bytes);
  EXPECT_EQ(plan.b_bytes, flat_plan.b_bytes);
}

TEST(gemm, what_no_kernel_takes_is_an_error) {
  float x = 0;
  Gemm g{.m = 2, .n = 2, .k = 2, .a = {&x, DType::kI32, 2, 1}, .b = {&x, kF32, 2, 1}, .c = {&x, kF32, 2, 1}};
  EXPECT_ERROR(UserError, { plan_gemm(g, chosen_isa()); }, "A is i32", "f32 and bf16");
  g.a.type = kF32;
  g.c.row = 4, g.c.col = 2;
  EXPECT_ERROR(UserError, { plan_gemm(g, chosen_isa()); }, "strides 4 and 2", "has to be 1");
}

TEST(gemm, panels_cover_the_lanes_once) {
  const GemmKernels& kernels = gemm_kernels(chosen_isa());
  for (int64_t n = 1; n < 700; ++n) {
    const Panels panels(n, kernels);
    int64_t next = 0;
    for (int64_t i = 0; i < panels.count(); ++i) {
      EXPECT_EQ(panels.start(i), next);
      EXPECT(panels.lanes(i) > 0);
      next += panels.width(i);
    }
    EXPECT_EQ(next, round_up(n, kernels.panel_step));
    EXPECT_EQ(panels.padded(), next);
  }
}

}  // namespace
}  // namespace mw
