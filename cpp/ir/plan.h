// A Plan is what passes make and an executor runs: the pieces of one rank, every buffer placed, and the order in which the
// pieces run.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ir/layout.h"
#include "ir/program.h"

namespace mw {

enum class Region : uint8_t {
  kNone,     // a value that needs no memory (unused result)
  kKept,     // parameters, accumulators, optimizer state, caches: owned by the runner, shared by the Plans that name them
  kCarried,  // left by one piece for a later one (gradients too where every piece runs once), and the batch fields
  kHost,     // the same in the host's memory, where a rematerialisation policy offloads
  kScratch,  // everything else: offsets in one arena
  kResult,   // results handed to the caller
};

struct Placement {
  Region region = Region::kNone;
  int32_t buffer = -1;  // index into Plan::kept, Plan::carried, Plan::host or Plan::results
  int64_t offset = 0;   // bytes from the start of that buffer, or of the scratch arena
};

enum class BufferRole : uint8_t { kParameter, kAccumulator, kOptimizerState, kCache, kInput, kScalar, kActivation, kResult };

struct Buffer {
  std::string name;
  BufferRole role;
  Type type;         // local: what this rank holds
  Type global_type;  // whole; equal to `type` on one rank
  Layout layout;
  int64_t offset = 0;  // in its region; carried buffers may share bytes where each piece runs once, for they live at different times
  int64_t bytes = 0;   // padded; of one copy
  // Of a carried buffer: as many as microbatches hold it at once. They lie one behind another, and microbatch m has copy m % copies.
  int32_t copies = 1;

  int64_t offset_of(int64_t microbatch) const { return offset + microbatch % copies * bytes; }
};

// A carried value on its way between the same ranks of two stages; on both it has this name and this layout.
struct Mail {
  std::string name;
  int32_t stage;  // that it comes from or goes to
  bool operator==(const Mail&) const = default;
};

// One straight Program with every value placed.
struct Piece {
  std::string name;     // forward, backward, update; in a pipeline also backward_input, backward_weight
  std::string variant;  // "", "first", "last", "first_last", "middle"
  Program program;
  int32_t chunk = 0;  // run of layers of a stage
  // Carried values that come from another stage before the piece runs, and go to one when it ends.
  std::vector<Mail> receives{}, sends{};
  std::vector<Placement> places{};   // by ValueId
  std::vector<int64_t> workspace{};  // by op: offset in scratch of its kernel's workspace, -1 without one
  // By op: a collective that is in flight from its place in the order to just in front of op `finish` (the number of ops: to the end of the
  // piece); -1: done when the next op runs. Filled by schedule; empty without it.
  std::vector<int32_t> finish{};
  int64_t scratch_bytes = 0;

  bool in_flight(size_t op) const { return op < finish.size() && finish[op] >= 0; }
};

struct RunRow {
  int32_t piece;
  int32_t microbatch;
};

// Layout of the kept, carried and input values that pieces share by name; filled by partition.
struct SharedValue {
  Type global_type;
  Layout layout;
};

// Rows of experts that one rank works on when they are sent to the ranks of their experts; of the layer with the most.
struct ExpertRowsPlanned {
  int64_t mean = 0;   // when every expert is chosen equally often
  int64_t bound = 0;  // what is planned; a run that needs more is repeated with a larger one. 0: rows stay with their tokens
  int64_t worst = 0;  // when all choices go to one rank: never more
  bool operator==(const ExpertRowsPlanned&) const = default;
};

struct Plan {
  std::map<std::string, SharedValue> shared;
  std::vector<Buffer> kept;
  std::vector<Buffer> carried;
  std::vector<Buffer> host;
  std::vector<Buffer> results;
  std::vector<Piece> pieces;
  std::vector<RunRow> order;
  int64_t kept_bytes = 0;
  int64_t carried_bytes = 0;  // all copies, at their fullest
  int64_t host_bytes = 0;     // the same
  int64_t scratch_bytes = 0;  // largest of all pieces
  int64_t result_bytes = 0;
  int64_t staging_bytes = 0;  // copies held while a checkpoint is saved
  ExpertRowsPlanned expert_rows;

  // Of the device; what is offloaded lies in the host's memory.
  int64_t peak_bytes() const { return kept_bytes + carried_bytes + scratch_bytes + result_bytes + staging_bytes; }
};

// Of the partitioned Programs, their run order and the buffers they share: ranks of one stage that agree on it do the same work. Source
// lines do not enter, nor does where scratch values lie.
uint64_t plan_hash(const Plan& plan);
uint64_t plan_hash(std::span<const Plan> stages);

}  // namespace mw
