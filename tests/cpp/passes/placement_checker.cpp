#include "passes/placement_checker.h"

#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "passes/place.h"
#include "passes/place_carried.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int32_t kNobody = -1, kWorkspace = -2;

class PieceChecker {
 public:
  PieceChecker(const Plan& plan, const Piece& piece) : plan_(plan), piece_(piece), program_(piece.program), root_(program_.values.size()) {}

  void run() {
    for (const ProgramInput& input : program_.inputs) {
      root_[static_cast<size_t>(input.value)] = input.value;
      own(input.value, "input '" + input.name + "'");
    }
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      visit(i);
      check_in_flight(i + 1);
    }
    for (const ProgramOutput& output : program_.outputs) check_owner(output.value, "output '" + output.name + "'");
  }

 private:
  using Lines = std::vector<int32_t>;

  const Placement& place(ValueId id) const { return piece_.places.at(static_cast<size_t>(id)); }
  ValueId root(ValueId id) const { return root_[static_cast<size_t>(id)]; }

  std::pair<int64_t, int64_t> lines_of(ValueId id) const {
    const int64_t offset = place(id).offset;
    return {offset / kPlacementAlignment, (offset + program_.type(id).bytes() + kPlacementAlignment - 1) / kPlacementAlignment};
  }

  Lines& memory(const Placement& p, const std::string& where) {
    int64_t bytes = piece_.scratch_bytes;
    if (p.region == Region::kKept) bytes = plan_.kept.at(static_cast<size_t>(p.buffer)).bytes;
    if (p.region == Region::kCarried) bytes = plan_.carried.at(static_cast<size_t>(p.buffer)).bytes;
    if (p.region == Region::kHost) bytes = plan_.host.at(static_cast<size_t>(p.buffer)).bytes;
    if (p.region == Region::kResult) bytes = plan_.results.at(static_cast<size_t>(p.buffer)).bytes;
    if (p.region == Region::kNone) throw Failure(where + " has no place");
    Lines& lines = memory_[{p.region, p.buffer}];
    if (lines.empty()) lines.assign(static_cast<size_t>((bytes + kPlacementAlignment - 1) / kPlacementAlignment), kNobody);
    return lines;
  }

  void own(ValueId id, const std::string& where) {
    Lines& lines = memory(place(id), where);
    if (place(id).offset % kPlacementAlignment != 0) throw Failure(where + " is not aligned");
    const auto [begin, end] = lines_of(id);
    if (end > static_cast<int64_t>(lines.size())) throw Failure(where + " ends beyond its region");
    std::fill(lines.begin() + begin, lines.begin() + end, id);
  }

  void check_owner(ValueId id, const std::string& where) {
    const Lines& lines = memory(place(id), where);
    const auto [begin, end] = lines_of(id);
    for (int64_t i = begin; i < end; ++i) {
      if (lines.at(static_cast<size_t>(i)) != root(id))
        throw Failure(where + ": value %" + std::to_string(id) + " was overwritten by %" + std::to_string(lines[static_cast<size_t>(i)]));
    }
  }

  bool share_bytes(ValueId a, ValueId b) const {
    if (place(a).region != place(b).region || place(a).buffer != place(b).buffer) return false;
    const auto [a_begin, a_end] = lines_of(a);
    const auto [b_begin, b_end] = lines_of(b);
    return a_begin < b_end && b_begin < a_end;
  }

  // An op may write over an operand only element by element, or where it says so.
  bool may_share(const Op& op, size_t result, size_t operand) const {
    const ValueId r = op.results[result], o = op.operands[operand];
    if (place(r).offset != place(o).offset || program_.type(r) != program_.type(o)) return false;
    return op.def->elementwise || (result < op.def->in_place.size() && op.def->in_place[result] == static_cast<int8_t>(operand));
  }

  void visit(size_t index) {
    const Op& op = program_.ops[index];
    const std::string where = piece_.name + ": " + program_.describe(op);
    for (const ValueId id : op.operands) check_owner(id, where);
    if (op.def->view) {
      root_[static_cast<size_t>(op.results[0])] = root(op.operands[0]);
      if (!share_bytes(op.results[0], op.operands[0]) || place(op.results[0]).offset != place(op.operands[0]).offset)
        throw Failure(where + ": a view has bytes of its own");
      return;
    }
    if (const int64_t workspace = piece_.workspace.at(index); workspace >= 0) {
      if (workspace % kPlacementAlignment != 0) throw Failure(where + ": its workspace is not aligned");
      Lines& lines = memory({Region::kScratch, -1, 0}, where);
      lines.at(static_cast<size_t>(workspace / kPlacementAlignment)) = kWorkspace;
      for (const ValueId id : op.operands) check_owner(id, where + " (workspace)");
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      root_[static_cast<size_t>(op.results[r])] = op.results[r];
      for (size_t o = 0; o < op.operands.size(); ++o) {
        if (share_bytes(op.results[r], op.operands[o]) && !may_share(op, r, o))
          throw Failure(where + ": result " + std::to_string(r) + " lies over operand " + std::to_string(o));
      }
      own(op.results[r], where);
    }
    for (const ValueId id : op.results) check_owner(id, where + " (its other results)");
  }

  // What the collectives hold that are finished in front of op `next` is still theirs.
  void check_in_flight(size_t next) {
    for (size_t i = 0; i < next; ++i) {
      if (!piece_.in_flight(i) || static_cast<size_t>(piece_.finish[i]) < next) continue;
      const Op& op = program_.ops[i];
      const std::string where = piece_.name + ": in flight in front of op " + std::to_string(next) + ": " + program_.describe(op);
      for (const ValueId id : op.operands) check_owner(id, where);
      for (const ValueId id : op.results) check_owner(id, where);
      if (piece_.workspace.at(i) < 0) continue;
      const auto line = static_cast<size_t>(piece_.workspace[i] / kPlacementAlignment);
      if (memory({Region::kScratch, -1, 0}, where).at(line) != kWorkspace) throw Failure(where + ": its workspace was overwritten");
    }
  }

  const Plan& plan_;
  const Piece& piece_;
  const Program& program_;
  std::vector<ValueId> root_;
  std::map<std::pair<Region, int32_t>, Lines> memory_;
};

// The same of the buffers of a region that pieces share, from the first row of the step to the last; owners are buffers.
class CarriedChecker {
 public:
  CarriedChecker(const Plan& plan, Region region, const std::vector<Buffer>& buffers, int64_t bytes)
      : plan_(plan), region_(region), buffers_(buffers), lines_(static_cast<size_t>(bytes / kPlacementAlignment), kNobody) {}

  void run() {
    std::set<int32_t> staged;
    for (const RunRow& row : plan_.order) {
      const Piece& piece = plan_.pieces[static_cast<size_t>(row.piece)];
      for (const ProgramInput& input : piece.program.inputs) {
        const int32_t buffer = buffer_of(piece, input.value);
        if (buffer >= 0 && input.kind == InputKind::kInput && staged.insert(buffer).second) own(buffer);
      }
      for (size_t i = 0; i < piece.program.ops.size(); ++i) {
        const Op& op = piece.program.ops[i];
        check(piece, op, op.operands);
        for (const ValueId id : op.results) {
          if (const int32_t buffer = buffer_of(piece, id); buffer >= 0 && !op.def->view) own(buffer);
        }
        check(piece, op, op.operands);
        for (size_t j = 0; j <= i; ++j) {
          if (!piece.in_flight(j) || static_cast<size_t>(piece.finish[j]) <= i) continue;
          check(piece, piece.program.ops[j], piece.program.ops[j].operands);
          check(piece, piece.program.ops[j], piece.program.ops[j].results);
        }
      }
    }
  }

 private:
  int32_t buffer_of(const Piece& piece, ValueId id) const {
    const Placement& place = piece.places.at(static_cast<size_t>(id));
    return place.region == region_ ? place.buffer : -1;
  }
  std::span<int32_t> lines_of(int32_t buffer) {
    const Buffer& b = buffers_.at(static_cast<size_t>(buffer));
    if (b.offset % kPlacementAlignment != 0 || b.bytes < b.type.bytes() || b.copies != 1)
      throw Failure("buffer '" + b.name + "' is not aligned or too small");
    const int64_t first = b.offset / kPlacementAlignment, count = b.bytes / kPlacementAlignment;
    if (first + count > std::ssize(lines_)) throw Failure("buffer '" + b.name + "' ends beyond its region");
    return std::span(lines_).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  }
  void own(int32_t buffer) {
    for (int32_t& owner : lines_of(buffer)) owner = buffer;
  }
  void check(const Piece& piece, const Op& op, const std::vector<ValueId>& ids) {
    for (const ValueId id : ids) {
      const int32_t buffer = buffer_of(piece, id);
      if (buffer < 0) continue;
      for (const int32_t owner : lines_of(buffer)) {
        if (owner != buffer)
          throw Failure(piece.name + ": " + piece.program.describe(op) + ": buffer '" + buffers_[static_cast<size_t>(buffer)].name +
                        "' was overwritten by " + (owner == kNobody ? "nobody" : "'" + buffers_[static_cast<size_t>(owner)].name + "'"));
      }
    }
  }

  const Plan& plan_;
  const Region region_;
  const std::vector<Buffer>& buffers_;
  std::vector<int32_t> lines_;
};

int64_t checked_end(const std::vector<Buffer>& buffers) {
  int64_t end = 0;
  for (const Buffer& buffer : buffers) {
    if (buffer.offset < end || buffer.offset % kPlacementAlignment != 0 || buffer.bytes < buffer.type.bytes())
      throw Failure("buffer '" + buffer.name + "' lies over another one");
    end = buffer.offset + buffer.bytes * buffer.copies;
  }
  return end;
}

}  // namespace

void check_placement(const Plan& plan) {
  EXPECT_EQ(checked_end(plan.kept), plan.kept_bytes);
  if (runs_once(plan)) {
    CarriedChecker(plan, Region::kCarried, plan.carried, plan.carried_bytes).run();
    CarriedChecker(plan, Region::kHost, plan.host, plan.host_bytes).run();
  } else {
    EXPECT_EQ(checked_end(plan.carried), plan.carried_bytes);
    EXPECT_EQ(checked_end(plan.host), plan.host_bytes);
  }
  EXPECT_EQ(checked_end(plan.results), plan.result_bytes);
  int64_t scratch = 0;
  for (const Piece& piece : plan.pieces) {
    PieceChecker(plan, piece).run();
    scratch = std::max(scratch, piece.scratch_bytes);
  }
  EXPECT_EQ(plan.scratch_bytes, scratch);
  EXPECT_EQ(plan.peak_bytes(), plan.kept_bytes + plan.carried_bytes + scratch + plan.result_bytes + plan.staging_bytes);
}

}  // namespace mw::testing
