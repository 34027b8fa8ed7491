#include "exec/cpu/executor.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/collective_kernels.h"

namespace mw::cpu {

bool has_kernel(const OpDef& def) { return def.view || def.collective || find_kernel(def.name) != nullptr; }

int64_t workspace_bytes(const Program& program, const Op& op, const KernelEnvironment& environment) {
  if (op.def->view) return 0;
  const Signature signature = program.signature(op);
  if (op.def->collective) return collective_workspace_bytes(*op.def, signature);
  const KernelMaker maker = find_kernel(op.def->name);
  MW_CHECK(maker, "the CPU backend has no kernel for ", program.describe(op));
  return maker(signature, environment).workspace_bytes;
}

Executor::Executor(const Plan& plan, RankMemory& memory, const Mesh& mesh, Communicator& communicator, KernelEnvironment environment)
    : plan_(plan), memory_(memory), communicator_(communicator) {
  for (const Buffer& buffer : plan.kept) kept_.push_back(memory.kept.get(buffer.name).data);
  size_t most_operands = 0, most_results = 0;
  for (const Piece& piece : plan.pieces) {
    std::vector<Step> steps;
    for (size_t i = 0; i < piece.program.ops.size(); ++i) {
      const Op& op = piece.program.ops[i];
      if (op.def->view) continue;
      Step step{.op = i, .kernel = {}, .operands = {}, .results = {}, .workspace = piece.workspace[i], .collective = op.def->collective};
      const Signature signature = piece.program.signature(op);
      if (op.def->collective) {
        step.kernel = make_collective(*op.def, signature, mesh, communicator_, expert_load_);
      } else {
        const KernelMaker maker = find_kernel(op.def->name);
        MW_CHECK(maker, "the CPU backend has no kernel for ", piece.program.describe(op));
        step.kernel = maker(signature, environment);
      }
      MW_CHECK(step.kernel.workspace_bytes == 0 || step.workspace >= 0, piece.program.describe(op), " has no workspace planned");
      for (const ValueId id : op.operands) step.operands.push_back(piece.places[static_cast<size_t>(id)]);
      for (const ValueId id : op.results) step.results.push_back(piece.places[static_cast<size_t>(id)]);
      most_operands = std::max(most_operands, op.operands.size());
      most_results = std::max(most_results, op.results.size());
      steps.push_back(std::move(step));
    }
    pieces_.push_back(std::move(steps));
  }
  operand_pointers_.resize(most_operands);
  result_pointers_.resize(most_results);
}

std::byte* Executor::address(const Placement& placement, int32_t carried_copy) const {
  switch (placement.region) {
    case Region::kKept:
      return kept_[static_cast<size_t>(placement.buffer)] + placement.offset;
    case Region::kCarried:
      return memory_.carried.data() + carried_copy * plan_.carried_bytes + plan_.carried[static_cast<size_t>(placement.buffer)].offset +
             placement.offset;
    case Region::kHost:
      return memory_.host.data() + carried_copy * plan_.host_bytes + plan_.host[static_cast<size_t>(placement.buffer)].offset +
             placement.offset;
    case Region::kResult:
      return memory_.results.data() + plan_.results[static_cast<size_t>(placement.buffer)].offset + placement.offset;
    case Region::kScratch:
      return memory_.scratch.data() + placement.offset;
    case Region::kNone:
      break;
  }
  throw InternalError("a value without a place is used");
}

void Executor::begin_run() {
  expert_load_ = {};
  for (std::vector<Step>& steps : pieces_) {
    for (Step& step : steps) {
      step.calls = 0;
      step.bytes_sent = 0;
    }
  }
}

void Executor::run(int32_t piece, int32_t carried_copy, ThreadPool& pool) {
  const Program& program = plan_.pieces.at(static_cast<size_t>(piece)).program;
  for (Step& step : pieces_[static_cast<size_t>(piece)]) {
    for (size_t i = 0; i < step.operands.size(); ++i) operand_pointers_[i] = address(step.operands[i], carried_copy);
    for (size_t i = 0; i < step.results.size(); ++i) result_pointers_[i] = address(step.results[i], carried_copy);
    const KernelRun run{operand_pointers_.data(), result_pointers_.data(),
                        step.workspace < 0 ? nullptr : memory_.scratch.data() + step.workspace, pool};
    const double sent_before = communicator_.bytes_sent();
    step.kernel.run(run);
    communicator_.progress();
    if (step.collective) {
      ++step.calls;
      step.bytes_sent += communicator_.bytes_sent() - sent_before;
    }
    if (observer) observer(program, program.ops[step.op], run);
  }
}

}  // namespace mw::cpu
