#include "passes/place_carried.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "passes/arena_plan.h"

namespace mw {
namespace {

// How many microbatches hold each carried buffer at once: from the first row that reads, writes or sends it to the last one. In all kinds
// of work microbatches come in ascending order, so that the one that holds it longest is the oldest and m % copies is free for m.
int64_t place_side_by_side(const Plan& plan, Region region, std::vector<Buffer>& buffers) {
  std::map<std::pair<std::string, int32_t>, std::set<size_t>> touched;  // buffers, by the name and chunk of a piece: all its variants
  const auto of_piece = [&](const Piece& piece) -> std::set<size_t>& { return touched[{piece.name, piece.chunk}]; };
  for (const Piece& piece : plan.pieces) {
    const auto touch = [&](ValueId id) {
      const Placement& place = piece.places[static_cast<size_t>(id)];
      if (place.region == region) of_piece(piece).insert(static_cast<size_t>(place.buffer));
    };
    for (const ProgramInput& input : piece.program.inputs) touch(input.value);
    for (const ProgramOutput& output : piece.program.outputs) touch(output.value);
  }
  // By buffer and microbatch: the first and the last row.
  std::vector<std::map<int32_t, std::pair<size_t, size_t>>> lives(buffers.size());
  for (size_t r = 0; r < plan.order.size(); ++r) {
    for (const size_t b : of_piece(plan.pieces[static_cast<size_t>(plan.order[r].piece)]))
      lives[b].try_emplace(plan.order[r].microbatch, r, r).first->second.second = r;
  }
  int64_t offset = 0;
  for (size_t b = 0; b < buffers.size(); ++b) {
    Buffer& buffer = buffers[b];
    std::deque<size_t> ends;
    std::pair<size_t, size_t> before{0, 0};
    for (const auto& [microbatch, life] : lives[b]) {
      MW_CHECK(life.first >= before.first && life.second >= before.second, "microbatches overtake each other with '", buffer.name, "'");
      before = life;
      while (!ends.empty() && ends.front() < life.first) ends.pop_front();
      ends.push_back(life.second);
      buffer.copies = std::max(buffer.copies, static_cast<int32_t>(ends.size()));
    }
    buffer.offset = offset;
    offset += buffer.bytes * buffer.copies;
  }
  return offset;
}

// Of a buffer: the first and the last op that touch it, counted over the whole step.
struct Life {
  int64_t first = -1, last = -1;

  void touch(int64_t from, int64_t until) {
    first = first < 0 ? from : std::min(first, from);
    last = std::max(last, until);
  }
};

std::vector<Life> lives_of(const Plan& plan, Region region, size_t num_buffers) {
  std::vector<Life> lives(num_buffers);
  int64_t start = 0;  // of the piece
  for (const RunRow& row : plan.order) {
    const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
    const Program& program = piece.program;
    const auto touch = [&](ValueId id, int64_t from, int64_t until) {
      const Placement& place = piece.places[static_cast<size_t>(id)];
      if (place.region == region) lives[static_cast<size_t>(place.buffer)].touch(start + from, start + until);
    };
    for (const ProgramInput& input : program.inputs) touch(input.value, 0, 0);  // fields of the batch are written in front of the piece
    for (int64_t i = 0; i < std::ssize(program.ops); ++i) {
      const Op& op = program.ops[static_cast<size_t>(i)];
      const int64_t until = piece.in_flight(static_cast<size_t>(i)) ? piece.finish[static_cast<size_t>(i)] - 1 : i;
      for (const ValueId id : op.operands) touch(id, i, until);
      for (const ValueId id : op.results) touch(id, i, until);
    }
    start += std::max<int64_t>(1, std::ssize(program.ops));
  }
  return lives;
}

int64_t place_by_lives(const Plan& plan, Region region, std::vector<Buffer>& buffers) {
  const std::vector<Life> lives = lives_of(plan, region, buffers.size());
  std::map<int64_t, std::pair<std::vector<size_t>, std::vector<size_t>>> events;  // buffers that begin, and that end
  for (size_t b = 0; b < buffers.size(); ++b) {
    events[lives[b].first].first.push_back(b);
    events[lives[b].last].second.push_back(b);
  }
  ArenaPlan arena;
  for (const auto& [time, event] : events) {
    for (const size_t b : event.first) buffers[b].offset = arena.take(buffers[b].bytes);
    for (const size_t b : event.second) arena.give_back(buffers[b].offset, buffers[b].bytes);
  }
  return arena.peak();
}

}  // namespace

bool runs_once(const Plan& plan) {
  std::set<int32_t> pieces;
  for (const RunRow& row : plan.order) pieces.insert(row.piece);
  return pieces.size() == plan.pieces.size() && plan.order.size() == pieces.size() &&
         std::all_of(plan.pieces.begin(), plan.pieces.end(),
                     [](const Piece& piece) { return piece.receives.empty() && piece.sends.empty(); });
}

int64_t place_carried(const Plan& plan, Region region, std::vector<Buffer>& buffers) {
  return runs_once(plan) ? place_by_lives(plan, region, buffers) : place_side_by_side(plan, region, buffers);
}

}  // namespace mw
