// Timing of single kernels, for `meshwright bench` and `doctor`.
//
//   const OpTiming timing = time_op(program, "dot", environment, pool, 1);
//   timing.cost.flops / timing.seconds
#pragma once
#include <string>
#include <string_view>

#include "exec/cpu/kernel.h"
#include "exec/cpu/openblas.h"
#include "ir/program.h"

namespace mw::cpu {

struct OpTiming {
  double seconds = 0;  // median of the runs
  int runs = 0;
  Cost cost;
  std::string kernel;  // Kernel::choice
  int64_t workspace_bytes = 0;
};

// Runs the kernel of the first op of that name on operands made up for it: floats near 1, integers below `int_below`. UserError when the
// Program has no such op.
OpTiming time_op(const Program& program, std::string_view op, const KernelEnvironment& environment, ThreadPool& pool, int64_t int_below);

// Seconds (median) of y[m, n] = x[m, k] w[n, k]^T in f32 by OpenBLAS.
double time_openblas(const OpenBlas& blas, int64_t m, int64_t n, int64_t k, ThreadPool& pool);

}  // namespace mw::cpu
