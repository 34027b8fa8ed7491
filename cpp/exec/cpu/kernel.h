// A kernel of this backend: one op made ready for given types. Kernels live in exec/cpu/kernels, one file per op family, and are listed in
// kernel_list.h. Making a kernel chooses and plans (it may allocate); running it does not allocate.
//
//   Kernel make_dot(const Signature& s, const KernelEnvironment& e) {
//     const GemmShape shape = ...;
//     return {.workspace_bytes = gemm_workspace_bytes(shape), .run = [shape](const KernelRun& r) { gemm(shape, r.operands[0], ...); }};
//   }
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/thread_pool.h"
#include "exec/cpu/isa.h"
#include "ir/op_def.h"

namespace mw::cpu {

struct KernelEnvironment {
  Isa isa;
  int threads = 1;
};

struct KernelRun {
  const std::byte* const* operands;  // by operand
  std::byte* const* results;         // by result; a result may be the very bytes of an operand that the op may overwrite
  std::byte* workspace;
  ThreadPool& pool;
};

struct Kernel {
  int64_t workspace_bytes = 0;
  std::function<void(const KernelRun&)> run;
  std::string choice;  // which variant, for `bench` and the profiler: "gemm f32 8x48 avx512"
};

using KernelMaker = Kernel (*)(const Signature&, const KernelEnvironment&);

// Null when this backend has no kernel for the op (its decomposition is used then).
KernelMaker find_kernel(std::string_view op);

}  // namespace mw::cpu
