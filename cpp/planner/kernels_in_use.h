// Which kernels a Plan would run.
#pragma once
#include <map>
#include <set>
#include <string>

#include "exec/cpu/kernel.h"
#include "ir/plan.h"

namespace mw {

// Op -> the variants (Kernel::choice) that its kernel chooses for the types in the Plan; views and collectives are left out.
std::map<std::string, std::set<std::string>> kernels_in_use(const Plan& plan, const cpu::KernelEnvironment& environment);

}  // namespace mw
