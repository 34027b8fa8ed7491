#include "planner/kernels_in_use.h"

namespace mw {

std::map<std::string, std::set<std::string>> kernels_in_use(const Plan& plan, const cpu::KernelEnvironment& environment) {
  std::map<std::string, std::set<std::string>> kernels;
  for (const Piece& piece : plan.pieces) {
    for (const Op& op : piece.program.ops) {
      const cpu::KernelMaker maker = op.def->view || op.def->collective ? nullptr : cpu::find_kernel(op.def->name);
      if (maker) kernels[std::string(op.def->name)].insert(maker(piece.program.signature(op), environment).choice);
    }
  }
  return kernels;
}

}  // namespace mw
