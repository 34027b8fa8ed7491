// Collectives as kernels: they bring a shard into the order that the communicator wants and call it.
#pragma once
#include "comm/communicator.h"
#include "exec/cpu/expert_exchange_kernels.h"
#include "exec/cpu/kernel.h"

namespace mw::cpu {

int64_t collective_workspace_bytes(const OpDef& def, const Signature& signature);
// `load` is told what the exchange of expert rows saw.
Kernel make_collective(const OpDef& def, const Signature& signature, const Mesh& mesh, Communicator& communicator, ExpertLoad& load);

}  // namespace mw::cpu
