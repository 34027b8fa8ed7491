// The kernel list: one row per file in exec/cpu/kernels that adapts kernels to ops. Each defines
// `void NAME_kernels(KernelTable&)`, which names its ops.
#pragma once
#include <string_view>
#include <unordered_map>

#include "exec/cpu/kernel.h"

#define MW_KERNEL_FAMILIES(ROW)

namespace mw::cpu {

using KernelTable = std::unordered_map<std::string_view, KernelMaker>;

#define MW_DECLARE_KERNELS(family) void family(KernelTable& table);
MW_KERNEL_FAMILIES(MW_DECLARE_KERNELS)
#undef MW_DECLARE_KERNELS

}  // namespace mw::cpu
