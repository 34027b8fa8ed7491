// The exchange of expert rows as kernels (ops/expert_exchange.h). Rows of one expert from one part are one block: a block is copied whole.
#pragma once
#include "comm/communicator.h"
#include "exec/cpu/kernel.h"

namespace mw::cpu {

// What a rank saw in one run.
struct ExpertLoad {
  double most = 0;        // rows that a rank of its group had to work on, as a multiple of those that it sent
  bool too_many = false;  // more than there is room for: nothing was sent, the results mean nothing
};

bool is_expert_exchange(const OpDef& def);
int64_t expert_exchange_workspace_bytes(const OpDef& def, const Signature& signature);
Kernel make_expert_exchange(const OpDef& def, const Signature& signature, Group group, Communicator& communicator, ExpertLoad& load);

}  // namespace mw::cpu
