#include "exec/cpu/executor.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "exec/cpu/collective_kernels.h"

namespace mw::cpu {
namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

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
        Collective collective = make_collective(*op.def, signature, mesh, communicator_, expert_load_);
        step.kernel = std::move(collective.kernel);
        if (piece.in_flight(i)) {
          MW_CHECK(collective.start, piece.program.describe(op), " cannot be in flight");
          step.start = std::move(collective.start);
          step.finish = std::move(collective.finish);
        }
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
    std::vector<size_t>& last = finished_last_.emplace_back();
    for (size_t s = 0; s < steps.size(); ++s) {
      if (!steps[s].start) continue;
      const auto end = static_cast<size_t>(piece.finish[steps[s].op]);
      const auto at = std::lower_bound(steps.begin(), steps.end(), end, [](const Step& step, size_t op) { return step.op < op; });
      (at == steps.end() ? last : at->finishes).push_back(s);
    }
    pieces_.push_back(std::move(steps));
  }
  operand_pointers_.resize(most_operands);
  result_pointers_.resize(most_results);
}

std::byte* Executor::address(const Placement& placement, int64_t microbatch) const {
  switch (placement.region) {
    case Region::kKept:
      return kept_[static_cast<size_t>(placement.buffer)] + placement.offset;
    case Region::kCarried:
      return memory_.carried.data() + plan_.carried[static_cast<size_t>(placement.buffer)].offset_of(microbatch) + placement.offset;
    case Region::kHost:
      return memory_.host.data() + plan_.host[static_cast<size_t>(placement.buffer)].offset_of(microbatch) + placement.offset;
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
  under_way_ = 0;
  for (std::vector<Step>& steps : pieces_) {
    for (Step& step : steps) {
      step.calls = 0;
      step.bytes_sent = 0;
      step.seconds = 0;
    }
  }
}

KernelRun Executor::bind(const Step& step, int64_t microbatch, ThreadPool& pool) {
  for (size_t i = 0; i < step.operands.size(); ++i) operand_pointers_[i] = address(step.operands[i], microbatch);
  for (size_t i = 0; i < step.results.size(); ++i) result_pointers_[i] = address(step.results[i], microbatch);
  return {operand_pointers_.data(), result_pointers_.data(), step.workspace < 0 ? nullptr : memory_.scratch.data() + step.workspace, pool};
}

void Executor::finish(Step& step, int64_t microbatch, ThreadPool& pool) {
  const Stopwatch watch;
  step.finish(bind(step, microbatch, pool), *step.transfer);
  step.transfer = nullptr;
  step.seconds += watch.seconds();
  --under_way_;
  if (timeline) {
    timeline->mark(SliceKind::kFinish, static_cast<int32_t>(step.op));
    timeline->mark_in_flight(static_cast<int32_t>(step.op), step.started);
  }
}

// An observer is shown whole results, so with one a collective ends where it starts.
void Executor::run(int32_t piece, int64_t microbatch, ThreadPool& pool) {
  const Program& program = plan_.pieces.at(static_cast<size_t>(piece)).program;
  std::vector<Step>& steps = pieces_[static_cast<size_t>(piece)];
  const bool beside = !observer;
  for (Step& step : steps) {
    if (beside) {
      for (const size_t started : step.finishes) finish(steps[started], microbatch, pool);
    }
    const KernelRun run = bind(step, microbatch, pool);
    const bool starts = beside && step.start;
    if (step.collective) {
      const double sent_before = communicator_.bytes_sent();
      const Stopwatch watch;
      if (starts) {
        if (timeline) step.started = timeline->last();
        step.transfer = step.start(run);
        ++under_way_;
      } else {
        step.kernel.run(run);
      }
      ++step.calls;
      step.seconds += watch.seconds();
      step.bytes_sent += communicator_.bytes_sent() - sent_before;
    } else {
      step.kernel.run(run);
    }
    if (timeline) timeline->mark(starts ? SliceKind::kStart : SliceKind::kOp, static_cast<int32_t>(step.op));
    communicator_.progress();
    if (timeline && under_way_ > 0) timeline->mark(SliceKind::kProgress, -1, Timeline::kShort);
    if (observer) observer(program, program.ops[step.op], run);
  }
  if (!beside) return;
  for (const size_t started : finished_last_[static_cast<size_t>(piece)]) finish(steps[started], microbatch, pool);
}

}  // namespace mw::cpu
