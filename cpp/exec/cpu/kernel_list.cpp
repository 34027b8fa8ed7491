#include "exec/cpu/kernel_list.h"

namespace mw::cpu {

KernelMaker find_kernel(std::string_view op) {
  static const KernelTable table = [] {
    KernelTable all;
#define MW_ADD_KERNELS(family) family(all);
    MW_KERNEL_FAMILIES(MW_ADD_KERNELS)
#undef MW_ADD_KERNELS
    return all;
  }();
  const auto at = table.find(op);
  return at == table.end() ? nullptr : at->second;
}

}  // namespace mw::cpu
