#include "exec/cpu/openblas.h"

#include <cstdlib>
#include <string>

#include "kernel_testing.h"

namespace mw {
namespace {

TEST(openblas, loads_with_its_variables_hidden_and_agrees_with_our_gemm) {
  const char* before = std::getenv("OPENBLAS_CORETYPE");
  const std::string core = before == nullptr ? "" : before;
  const OpenBlas* blas = find_openblas();
  const char* after = std::getenv("OPENBLAS_CORETYPE");
  EXPECT_EQ(core, std::string(after == nullptr ? "" : after));
  if (blas == nullptr) return;  // a build without it
  EXPECT(!blas->path.empty());
  const int64_t m = 37, n = 50, k = 41;
  const testing::Tensor a = testing::Tensor::random(DType::kF32, m * k, 1), b = testing::Tensor::random(DType::kF32, n * k, 2);
  testing::Tensor theirs(DType::kF32, m * n), ours(DType::kF32, m * n);
  ThreadPool pool(3);
  Gemm g{.m = m,
         .n = n,
         .k = k,
         .a = {a.data(), DType::kF32, 1, m},
         .b = {b.data(), DType::kF32, 1, k},
         .c = {theirs.data(), DType::kF32, n, 1}};
  openblas_gemm(*blas, g, pool);
  g.c.data = ours.data();
  const GemmPlan plan = plan_gemm(g, chosen_isa());
  testing::Workspace workspace(plan.workspace_bytes);
  run_gemm(g, plan, workspace.data(), pool);
  testing::expect_close(theirs.loaded(), ours.loaded(), 1e-5, "openblas");
}

}  // namespace
}  // namespace mw
