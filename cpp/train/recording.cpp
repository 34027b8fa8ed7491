#include "train/recording.h"

#include <algorithm>

#include "base/error.h"
#include "passes/explain.h"
#include "planner/op_work.h"

namespace mw {
namespace {

struct KindName {
  const char* kind;
  const char* name;
};

KindName name_of(SliceKind kind) {
  switch (kind) {
    case SliceKind::kOp:
      break;
    case SliceKind::kStart:
      return {"start", ""};
    case SliceKind::kFinish:
      return {"finish", ""};
    case SliceKind::kInFlight:
      return {"in flight", ""};
    case SliceKind::kProgress:
      return {"progress", "move collectives on"};
    case SliceKind::kBegin:
      return {"other", "begin"};
    case SliceKind::kInputs:
      return {"other", "take in the batch"};
    case SliceKind::kReceive:
      return {"wait", "wait for mail"};
    case SliceKind::kSend:
      return {"mail", "send mail"};
    case SliceKind::kAgree:
      return {"other", "agree"};
    case SliceKind::kShare:
      return {"wait", "results of all stages"};
    case SliceKind::kEnd:
      return {"other", "end"};
  }
  return {"compute", ""};
}

std::string types_text(const Program& program, const Op& op) {
  std::string text;
  for (const ValueId id : op.operands) text += (text.empty() ? "" : ", ") + to_string(program.type(id));
  text += " -> ";
  for (size_t i = 0; i < op.results.size(); ++i) text += (i > 0 ? ", " : "") + to_string(program.type(op.results[i]));
  return text;
}

std::string place_text(const Mesh& mesh, int64_t rank) {
  std::string text;
  for (const std::string& axis : Mesh::axis_names()) {
    if (mesh.size_of(axis) > 1) text += concat_text(text.empty() ? "" : " ", axis, "=", mesh.coordinate(rank, axis));
  }
  return text;
}

RecordedWork work_of_op(const Piece& piece, const cpu::Executor::Step& step, const ExpertRowsPlanned& rows) {
  const Program& program = piece.program;
  const Op& op = program.ops[step.op];
  const bool sends = communicates(op);
  RecordedWork work{.kind = sends ? "collective" : "compute",
                    .piece = piece_title(piece),
                    .name = std::string(op.def->name),
                    .scope = program.scopes[static_cast<size_t>(op.scope)],
                    .types = types_text(program, op),
                    .kernel = step.kernel.choice,
                    .dtype = sends ? "" : product_dtype(program, op)};
  work.source = program.sources[static_cast<size_t>(op.source)];
  work.pass = program.passes[static_cast<size_t>(op.pass)];
  if (sends) {
    work.sent = bytes_sent(program, op).usual;
    work.kernel = axes_text(op);
  } else {
    const Cost cost = usual_cost(program, op, rows);
    work.flops = cost.flops;
    work.bytes = cost.bytes;
  }
  return work;
}

// What a slice of a rank was spent on; `piece`: of its row, null outside the pieces.
RecordedWork work_of(const TimeSlice& slice, const Piece* piece, int32_t number, const Plan& plan, const cpu::Executor& rank,
                     const Group& stages) {
  const auto [kind, name] = name_of(slice.kind);
  if (piece && slice.op >= 0) {
    const std::vector<cpu::Executor::Step>& steps = rank.steps(number);
    const auto at = std::ranges::lower_bound(steps, static_cast<size_t>(slice.op), {}, &cpu::Executor::Step::op);
    RecordedWork work = work_of_op(*piece, *at, plan.expert_rows);
    if (slice.kind != SliceKind::kOp) work.kind = kind;
    return work;
  }
  RecordedWork work{
      .kind = kind, .piece = piece ? piece_title(*piece) : "", .name = name, .scope = {}, .types = {}, .kernel = {}, .dtype = {}};
  const bool receives = slice.kind == SliceKind::kReceive;
  if (!receives && slice.kind != SliceKind::kSend) return work;
  for (const Mail& mail : receives ? piece->receives : piece->sends) {
    const int64_t bytes = find_buffer(plan.carried, mail.name)->type.bytes();
    work.letters.push_back({mail.name, stages.ranks[static_cast<size_t>(mail.stage)], bytes});
    if (!receives) work.sent += static_cast<double>(bytes);
  }
  return work;
}

}  // namespace

int64_t Recording::remember(RecordedWork work) {
  std::string key = work.kind + "\n" + work.piece + "\n" + work.name + "\n" + work.scope + "\n" + work.types + "\n" + work.kernel;
  for (const RecordedWork::Letter& letter : work.letters) key += concat_text("\n", letter.name, " ", letter.peer);
  const auto [at, fresh] = known_.emplace(key, std::ssize(work_));
  if (fresh) work_.push_back(std::move(work));
  return at->second;
}

void Recording::add(int64_t step, const LoadedPlan& loaded, const Engine& engine) {
  const Mesh& mesh = engine.mesh();
  const std::vector<int64_t>& ranks = engine.world().local_ranks();
  MW_CHECK(loaded.timelines.size() == ranks.size(), "the run was not recorded");
  threads_per_rank_ = engine.threads_per_rank();
  if (plan_ != loaded.number) of_slice_.clear();
  plan_ = loaded.number;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const int64_t stage = mesh.coordinate(ranks[r], "stage");
    const Plan& plan = loaded.plan_of(stage);
    const Group stages = make_group(mesh, ranks[r], {{"stage", 1, mesh.size_of("stage")}});
    places_[ranks[r]] = place_text(mesh, ranks[r]);
    for (const TimeSlice& slice : loaded.timelines[r].slices()) {
      const bool inside = slice.row >= 0;
      const int32_t piece = inside ? plan.order[static_cast<size_t>(slice.row)].piece : -1;
      const int32_t microbatch = inside ? plan.order[static_cast<size_t>(slice.row)].microbatch : -1;
      const bool mail = slice.kind == SliceKind::kReceive || slice.kind == SliceKind::kSend;
      const auto [at, fresh] = of_slice_.try_emplace({mail ? -1 - ranks[r] : stage, slice.kind, piece, slice.op}, 0);
      if (fresh) {
        const Piece* program = inside ? &plan.pieces[static_cast<size_t>(piece)] : nullptr;
        at->second = remember(work_of(slice, program, piece, plan, *loaded.ranks[r], stages));
      }
      slices_.push_back({at->second, ranks[r], step, slice.row, microbatch, slice.begin, slice.end});
    }
  }
}

}  // namespace mw
