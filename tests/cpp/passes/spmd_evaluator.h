// Runs a Plan on N simulated ranks in lock step with the ops' references: the oracle of partition, rematerialize and fuse. Every rank
// has arrays of its own; a collective reads those of its whole group.
//
//   SpmdEvaluator ranks(plan, mesh);
//   ranks.write("model.norm.weight", whole);                   // cut up by the layout in the Plan
//   ranks.run({{"input_ids", ids}, {"lr", scalar(1e-3)}});     // batch fields hold the rows of all microbatches
//   HostArray w = ranks.read("model.norm.weight");             // put together again; copies must be equal
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "exec/reference/evaluate.h"
#include "ir/plan.h"
#include "mesh/mesh.h"

namespace mw::testing {

struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;  // of the operands, per rank
  bool operator==(const Traffic&) const = default;
};

class SpmdEvaluator {
 public:
  SpmdEvaluator(const Plan& plan, Mesh mesh, ReferenceOptions options = {.round_results = false});

  // A state or parameter.
  void write(const std::string& name, const HostArray& whole);
  HostArray read(const std::string& name) const;
  bool has(const std::string& name) const { return states_.at(0).contains(name); }
  // What one rank holds of it.
  const HostArray& shard(int64_t rank, const std::string& name) const { return states_.at(static_cast<size_t>(rank)).at(name); }

  // All rows of the Plan's order. UserError when an input is missing.
  void run(const std::map<std::string, HostArray>& inputs);
  HostArray result(const std::string& name) const;

  // Collectives of the runs so far by the name of the op.
  const std::map<std::string, Traffic>& traffic() const { return traffic_; }
  // Called before each piece.
  std::function<void(const Piece&, int microbatch)> before_piece;

 private:
  using Arrays = std::map<std::string, HostArray>;
  using Values = std::vector<std::optional<HostArray>>;

  void run_piece(const Piece& piece, int64_t microbatch, const std::map<std::string, HostArray>& inputs);
  void run_op(const Program& program, const Op& op);
  void run_collective(const Program& program, const Op& op);
  HostArray input_shard(const ProgramInput& input, const Type& local, int64_t microbatch, const HostArray& whole, int64_t rank) const;

  const Plan& plan_;
  Mesh mesh_;
  ReferenceOptions options_;
  std::vector<Arrays> states_, carried_, results_;  // by rank
  std::vector<Values> values_;
  std::map<std::string, Traffic> traffic_;
};

// The block of `whole` that a rank holds.
HostArray shard_of(const HostArray& whole, const Layout& layout, const Mesh& mesh, int64_t rank);

// Rows [start, start + size) along `dim`.
HostArray block_of(const HostArray& x, const std::string& dim, int64_t start, int64_t size);

}  // namespace mw::testing
