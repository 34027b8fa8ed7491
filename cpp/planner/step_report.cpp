#include "planner/step_report.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/error.h"
#include "models/flops.h"
#include "models/registry.h"
#include "passes/explain.h"
#include "planner/op_work.h"
#include "planner/step_time.h"

namespace mw {
namespace {

StepMemory memory_of(const Plan& plan) {
  StepMemory memory;
  for (const Buffer& buffer : plan.kept) {
    switch (buffer.role) {
      case BufferRole::kParameter:
        memory.parameters += buffer.bytes;
        break;
      case BufferRole::kAccumulator:
        memory.gradients += buffer.bytes;
        break;
      case BufferRole::kScalar:
        memory.batch += buffer.bytes;
        break;
      default:
        memory.optimizer_state += buffer.bytes;
    }
  }
  for (const Buffer& buffer : plan.carried)
    (buffer.role == BufferRole::kInput ? memory.batch : memory.activations) += buffer.bytes * plan.carried_copies;
  memory.scratch = plan.scratch_bytes;
  memory.results = plan.result_bytes;
  memory.staging = plan.staging_bytes;
  memory.host = plan.host_peak_bytes();
  return memory;
}

// "layers.3.mlp.gate/dot#17" -> "layers.*.mlp.gate"
std::string scope_of_carried(const std::string& name) { return scope_of_any_layer(name.substr(0, name.find('/'))); }

std::vector<ScopeBytes> activations_of(const Plan& plan) {
  std::map<std::string, int64_t> bytes;
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role != BufferRole::kInput) bytes[scope_of_carried(buffer.name)] += buffer.bytes * plan.carried_copies;
  }
  return sorted_by_bytes(bytes);
}

std::vector<int64_t> runs_of_pieces(const Plan& plan) {
  std::vector<int64_t> runs(plan.pieces.size(), 0);
  for (const RunRow& row : plan.order) ++runs[static_cast<size_t>(row.piece)];
  return runs;
}

double flops_of(const Program& program, const ExpertRowsPlanned& rows) {
  double flops = 0;
  for (const Op& op : program.ops) flops += usual_cost(program, op, rows).flops;
  return flops;
}

void add_collectives(const Piece& piece, int64_t runs, StepReport& report) {
  const Program& program = piece.program;
  for (const Op& op : program.ops) {
    if (!communicates(op)) continue;
    const Type& given = program.type(op.operands[0]);
    const BytesSent sent = bytes_sent(program, op);
    report.collectives.push_back({.piece = piece_title(piece),
                                  .op = std::string(op.def->name),
                                  .axes = axes_text(op),
                                  .type = to_string(given),
                                  .scope = program.scopes[static_cast<size_t>(op.scope)],
                                  .source = program.sources[static_cast<size_t>(op.source)],
                                  .calls = runs,
                                  .bytes_sent = sent.usual,
                                  .most_bytes_sent = sent.most,
                                  .recomputed = program.passes[static_cast<size_t>(op.pass)] == "rematerialize"});
  }
}

std::vector<AxisTraffic> traffic_of(const std::vector<PlannedCollective>& collectives) {
  std::map<std::pair<std::string, std::string>, AxisTraffic> sums;
  for (const PlannedCollective& c : collectives) {
    AxisTraffic& sum = sums[{c.axes, c.op}];
    sum.op = c.op;
    sum.axes = c.axes;
    sum.calls += c.calls;
    sum.bytes_sent += c.bytes_sent * static_cast<double>(c.calls);
    sum.most_bytes_sent += c.most_bytes_sent * static_cast<double>(c.calls);
  }
  std::vector<AxisTraffic> list;
  for (auto& [key, sum] : sums) list.push_back(std::move(sum));
  return list;
}

}  // namespace

StepReport report_step(const TrainPlanSpec& spec, const Plan& plan) {
  StepReport report;
  report.num_ranks = spec.mesh.size();
  report.num_parameters = num_elements(model_parameters(spec.config, spec.dtype));
  report.memory = memory_of(plan);
  MW_CHECK(report.memory.peak() == plan.peak_bytes(), "the parts of a Plan's memory add up to ", report.memory.peak(), " of ",
           plan.peak_bytes(), " bytes");
  report.activations = activations_of(plan);
  report.expert_rows = plan.expert_rows;
  report.model_flops = training_flops(spec.config, static_cast<double>(spec.batch), static_cast<double>(spec.seq));
  const std::vector<int64_t> runs = runs_of_pieces(plan);
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    report.executed_flops += flops_of(plan.pieces[i].program, plan.expert_rows) * static_cast<double>(runs[i] * report.num_ranks);
    add_collectives(plan.pieces[i], runs[i], report);
  }
  report.traffic = traffic_of(report.collectives);
  return report;
}

std::vector<AxisTraffic> counted_traffic(const Plan& plan, const cpu::Executor& rank) {
  std::vector<PlannedCollective> collectives;
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    for (const cpu::Executor::Step& step : rank.steps(static_cast<int32_t>(i))) {
      const Op& op = plan.pieces[i].program.ops[step.op];
      if (!communicates(op)) continue;
      const double bytes = step.bytes_sent / static_cast<double>(std::max<int64_t>(1, step.calls));
      collectives.push_back({.piece = {},
                             .op = std::string(op.def->name),
                             .axes = axes_text(op),
                             .type = {},
                             .scope = {},
                             .source = {},
                             .calls = step.calls,
                             .bytes_sent = bytes,
                             .most_bytes_sent = bytes});
    }
  }
  return traffic_of(collectives);
}

std::string explain_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const std::string& after) {
  const std::string before = after.starts_with("before ") ? after.substr(7) : "";
  std::string text, previous;
  std::vector<std::string> known{"memory", "collectives"};
  const Plan plan = plan_train_step(spec, backend, [&](std::string_view pass, const Plan& current) {
    known.emplace_back(pass);
    if (pass == before) text = previous;
    if (pass == after) text = list_programs(current);
    if (!before.empty() && text.empty()) previous = list_programs(current);
  });
  if (after == "memory") return list_memory(plan);
  if (after == "collectives") return list_collectives(plan);
  if (text.empty()) throw UserError("explain: there is no pass '" + after + "'" + did_you_mean(after, known));
  return text;
}

}  // namespace mw
