// How long an optimizer step takes, read off its Plan: every op at the cost of a chip, transfers beside compute where they may be.
//
//   const StepTime time = time_step(plan, CostModel(hardware, mesh, plan.expert_rows, {}));
//   time.seconds, time.exposed_seconds
//
// A piece is played back: ops compute one after another; a transfer starts when what it sends is there, its links are free and, with
// overlap, no earlier than the layer before its own; who reads its result waits. Waiting is exposed communication. Where the Plan is
// scheduled (Piece::finish), it says what is beside compute, from where to where.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "planner/cost_model.h"

namespace mw {

// Neighbouring ops of one layer (or of one scope outside the layers), and what ran meanwhile.
struct TimeSpan {
  std::string scope;  // "layers.3", "head"
  double start = 0, end = 0;
  double transfer_seconds = 0;  // of transfers that belong to it, whenever they ran
};

// Links of these axes are busy. A transfer waits for its links, so it may run long after its operand was there.
struct LinkSpan {
  std::string axes;
  double start = 0, end = 0;
};

struct PieceTime {
  std::string piece;  // "backward (first)"
  int64_t runs = 0;   // in a step
  double seconds = 0;
  double flops_seconds = 0;               // compute that FLOPs bound
  double bytes_seconds = 0;               // compute that memory bounds
  double weight_seconds = 0;              // of these, matrix products with weights
  double transfer_seconds = 0;            // links busy, all levels together
  double exposed_seconds = 0;             // seconds - flops_seconds - bytes_seconds
  std::map<std::string, double> exposed;  // by axes
  std::map<std::string, double> scopes;   // compute by scope, layer numbers as `*`
  std::vector<TimeSpan> spans;
  std::vector<LinkSpan> transfers;  // neighbours of the same axes are one
  std::vector<double> op_start;     // by op
  int64_t gathered_ahead = 0;       // bytes of the largest layer's gathered parameters, which overlap holds one layer early
};

struct StepTime {
  std::vector<PieceTime> pieces;  // as those of the Plan
  double seconds = 0;
  double flops_seconds = 0, bytes_seconds = 0, transfer_seconds = 0, exposed_seconds = 0;
  std::map<std::string, double> exposed;  // by axes
  std::map<std::string, double> scopes;
  int64_t gathered_ahead = 0;
};

// Whether ops of a scope count; null: all do.
using ScopeFilter = std::function<bool(std::string_view scope)>;

PieceTime time_piece(const Piece& piece, const CostModel& model, const ScopeFilter& counts = nullptr);
// One stage: pieces run one after another.
StepTime time_step(const Plan& plan, const CostModel& model, const ScopeFilter& counts = nullptr);

// "layers.3.mlp.gate" -> "layers.3"; outside the layers the scope itself.
std::string span_of_scope(std::string_view scope);
// "layers.3.mlp.gate" -> "layers.*.mlp.gate"
std::string scope_of_any_layer(std::string_view scope);

}  // namespace mw
