#include "ops/offload.h"

#include <array>
#include <span>

#include "ops/op_list.h"

namespace mw {
namespace {

std::vector<Type> infer_same(const Signature& signature) { return {signature.operand(0)}; }

Cost moves_only(const Signature& signature) { return {.flops = 0, .bytes = default_cost(signature).bytes}; }

void copy_all(const ReferenceContext& context) { context.result(0).data = context.operand(0).data; }

const std::array<OpDef, 2> kDefs{
    OpDef{.name = "to_host",
          .doc = "y = x, in the host's memory: what a rematerialisation policy offloads leaves the device here",
          .num_operands = 1,
          .infer = infer_same,
          .cost = moves_only,
          .reference = copy_all},
    OpDef{.name = "from_host",
          .doc = "y = x, back from the host's memory, just before its first use",
          .num_operands = 1,
          .infer = infer_same,
          .cost = moves_only,
          .reference = copy_all}};

}  // namespace

std::span<const OpDef> offload_ops() { return kDefs; }

Tensor to_host(Tensor x, Source source) { return x.builder->append1(kDefs[0], {x}, {}, source); }
Tensor from_host(Tensor h, Source source) { return h.builder->append1(kDefs[1], {h}, {}, source); }

}  // namespace mw
