// Looks for NaNs and infinities in what a kernel wrote.
#pragma once
#include <string>

#include "exec/cpu/kernel.h"
#include "ir/program.h"

namespace mw {

// "exp at head (model.py:7) made an infinity in f32[batch=2]" for the first result that is not finite, "" when all are.
std::string find_not_finite(const Program& program, const Op& op, const cpu::KernelRun& run);

}  // namespace mw
