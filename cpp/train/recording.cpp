#include "train/recording.h"

#include <tuple>

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
  threads_per_rank_ = engine.threads_per_rank();
  MW_CHECK(loaded.timelines.size() == ranks.size(), "the run was not recorded");
  std::map<std::tuple<int64_t, SliceKind, int32_t, int32_t>, int64_t> of_slice;  // rank where it has letters, else stage; kind, piece, op
  for (size_t r = 0; r < ranks.size(); ++r) {
    const int64_t stage = mesh.coordinate(ranks[r], "stage");
    places_[ranks[r]] = place_text(mesh, ranks[r]);
    const Plan& plan = loaded.plan_of(stage);
    const std::vector<int64_t> same = make_group(mesh, ranks[r], {{"stage", 1, mesh.size_of("stage")}}).ranks;
    std::vector<std::map<size_t, const cpu::Executor::Step*>> steps(plan.pieces.size());
    for (size_t p = 0; p < steps.size(); ++p) {
      for (const cpu::Executor::Step& s : loaded.ranks[r]->steps(static_cast<int32_t>(p))) steps[p].emplace(s.op, &s);
    }
    const auto describe = [&](const TimeSlice& slice, int32_t p) {
      const auto [kind, name] = name_of(slice.kind);
      if (p < 0) return RecordedWork{.kind = kind, .piece = {}, .name = name, .scope = {}, .types = {}, .kernel = {}, .dtype = {}};
      const Piece& piece = plan.pieces[static_cast<size_t>(p)];
      if (slice.op >= 0) {
        RecordedWork work = work_of_op(piece, *steps[static_cast<size_t>(p)].at(static_cast<size_t>(slice.op)), plan.expert_rows);
        if (slice.kind != SliceKind::kOp) work.kind = kind;
        return work;
      }
      RecordedWork work{.kind = kind, .piece = piece_title(piece), .name = name, .scope = {}, .types = {}, .kernel = {}, .dtype = {}};
      const bool receives = slice.kind == SliceKind::kReceive, sends = slice.kind == SliceKind::kSend;
      if (receives || sends) {
        for (const Mail& mail : receives ? piece.receives : piece.sends) {
          const Buffer* buffer = find_buffer(plan.carried, mail.name);
          work.letters.push_back({mail.name, same[static_cast<size_t>(mail.stage)], buffer->type.bytes()});
          if (sends) work.sent += static_cast<double>(buffer->type.bytes());
        }
      }
      return work;
    };
    for (const TimeSlice& slice : loaded.timelines[r].slices()) {
      const bool inside = slice.row >= 0;
      const RunRow row = inside ? plan.order[static_cast<size_t>(slice.row)] : RunRow{-1, -1};
      const bool mail = slice.kind == SliceKind::kReceive || slice.kind == SliceKind::kSend;
      const auto [at, fresh] = of_slice.try_emplace({mail ? -1 - ranks[r] : stage, slice.kind, row.piece, slice.op}, 0);
      if (fresh) at->second = remember(describe(slice, row.piece));
      slices_.push_back({at->second, ranks[r], step, slice.row, row.microbatch, slice.begin, slice.end});
    }
  }
}

}  // namespace mw
