// The kernel list: one row per file exec/cpu/kernels/ops_NAME.cpp, which adapts kernels to ops. Each defines
// `void NAME_kernels(KernelTable&)`, which names its ops.
#pragma once
#include <string_view>
#include <unordered_map>

#include "exec/cpu/kernel.h"

#define MW_KERNEL_FAMILIES(ROW) \
  ROW(elementwise_kernels)      \
  ROW(dot_kernels)              \
  ROW(grouped_dot_kernels)      \
  ROW(route_kernels)            \
  ROW(expert_rows_kernels)      \
  ROW(shape_kernels)            \
  ROW(reduce_kernels)           \
  ROW(norm_kernels)             \
  ROW(rope_kernels)             \
  ROW(gated_activation_kernels) \
  ROW(gather_kernels)           \
  ROW(random_kernels)           \
  ROW(optimizer_kernels)        \
  ROW(cross_entropy_kernels)    \
  ROW(attention_kernels)

namespace mw::cpu {

using KernelTable = std::unordered_map<std::string_view, KernelMaker>;

#define MW_DECLARE_KERNELS(family) void family(KernelTable& table);
MW_KERNEL_FAMILIES(MW_DECLARE_KERNELS)
#undef MW_DECLARE_KERNELS

}  // namespace mw::cpu
