// Collectives as kernels: they bring a shard into the order that the communicator wants and call it.
#pragma once
#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "exec/cpu/expert_exchange_kernels.h"
#include "exec/cpu/kernel.h"

namespace mw::cpu {

int64_t collective_workspace_bytes(const OpDef& def, const Signature& signature);

struct Collective {
  Kernel kernel;
  // Of one that can run beside compute, its two halves; `finish` gets what `start` returned and the same KernelRun.
  std::function<std::unique_ptr<Transfer>(const KernelRun&)> start{};
  std::function<void(const KernelRun&, Transfer&)> finish{};
};
// `load` is told what the exchange of expert rows saw.
Collective make_collective(const OpDef& def, const Signature& signature, const Mesh& mesh, Communicator& communicator, ExpertLoad& load);

}  // namespace mw::cpu
