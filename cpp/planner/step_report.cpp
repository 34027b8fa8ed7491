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
  int64_t fields = 0;
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role == BufferRole::kInput) fields += buffer.bytes * buffer.copies;
    if (buffer.role == BufferRole::kActivation) memory.activations += buffer.bytes * buffer.copies;
  }
  memory.batch += fields;
  memory.activations = std::min(memory.activations, plan.carried_bytes - fields);
  memory.gradients += plan.carried_bytes - fields - memory.activations;
  memory.scratch = plan.scratch_bytes;
  memory.results = plan.result_bytes;
  memory.staging = plan.staging_bytes;
  memory.host = plan.host_bytes;
  return memory;
}

namespace {

// "layers.3.mlp.gate/dot#17" -> "layers.*.mlp.gate"
std::string scope_of_carried(const std::string& name) { return scope_of_any_layer(name.substr(0, name.find('/'))); }

std::vector<ScopeBytes> activations_of(const Plan& plan) {
  std::map<std::string, int64_t> bytes;
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role == BufferRole::kActivation) bytes[scope_of_carried(buffer.name)] += buffer.bytes * buffer.copies;
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

std::vector<PlannedCollective> collectives_of(const Piece& piece, int64_t runs) {
  std::vector<PlannedCollective> list;
  const Program& program = piece.program;
  for (const Op& op : program.ops) {
    if (!communicates(op)) continue;
    const Type& given = program.type(op.operands[0]);
    const BytesSent sent = bytes_sent(program, op);
    list.push_back({.piece = piece_title(piece),
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
  return list;
}

PlannedCollective mail_row(int64_t letters, double bytes_each) {
  return {.piece = {},
          .op = "send",
          .axes = "stage",
          .type = {},
          .scope = {},
          .source = {},
          .calls = letters,
          .bytes_sent = bytes_each,
          .most_bytes_sent = bytes_each};
}

// What a piece sends to another stage, by value.
void add_mail(const Plan& plan, const Piece& piece, int64_t runs, std::vector<PlannedCollective>& list) {
  for (const Mail& mail : piece.sends) {
    const Buffer* buffer = find_buffer(plan.carried, mail.name);
    MW_CHECK(buffer, mail.name, " is sent but not carried");
    PlannedCollective row = mail_row(runs, static_cast<double>(buffer->type.bytes()));
    row.piece = piece_title(piece);
    row.type = to_string(buffer->type);
    row.scope = mail.name.substr(0, mail.name.find('/'));
    list.push_back(std::move(row));
  }
}

// All that a rank with this Plan sends in a step.
std::vector<PlannedCollective> all_sent(const Plan& plan) {
  std::vector<PlannedCollective> all;
  const std::vector<int64_t> runs = runs_of_pieces(plan);
  for (size_t i = 0; i < plan.pieces.size(); ++i) {
    for (PlannedCollective& row : collectives_of(plan.pieces[i], runs[i])) all.push_back(std::move(row));
    add_mail(plan, plan.pieces[i], runs[i], all);
  }
  return all;
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

StepReport report_step(const TrainPlanSpec& spec, std::span<const Plan> stages) {
  StepReport report;
  report.num_ranks = spec.mesh.size();
  report.num_parameters = num_elements(model_parameters(spec.config, spec.dtype));
  report.model_flops = training_flops(spec.config, static_cast<double>(spec.batch), static_cast<double>(spec.seq));
  const Plan* fullest = &stages.front();
  for (const Plan& plan : stages) {
    if (plan.peak_bytes() > fullest->peak_bytes()) fullest = &plan;
    const std::vector<int64_t> runs = runs_of_pieces(plan);
    for (size_t i = 0; i < plan.pieces.size(); ++i) {
      report.executed_flops +=
          flops_of(plan.pieces[i].program, plan.expert_rows) * static_cast<double>(runs[i] * report.num_ranks / std::ssize(stages));
    }
  }
  report.memory = memory_of(*fullest);
  MW_CHECK(report.memory.peak() == fullest->peak_bytes(), "the parts of a Plan's memory add up to ", report.memory.peak(), " of ",
           fullest->peak_bytes(), " bytes");
  report.activations = activations_of(*fullest);
  report.expert_rows = fullest->expert_rows;
  report.collectives = all_sent(*fullest);
  report.traffic = traffic_of(report.collectives);
  return report;
}

std::vector<AxisTraffic> planned_traffic(const Plan& plan) { return traffic_of(all_sent(plan)); }

std::vector<AxisTraffic> counted_traffic(const Plan& plan, const cpu::Executor& rank, const SentMail& mail) {
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
  if (mail.letters > 0) collectives.push_back(mail_row(mail.letters, static_cast<double>(mail.bytes) / static_cast<double>(mail.letters)));
  return traffic_of(collectives);
}

std::string explain_train_step(const TrainPlanSpec& spec, const BackendFacts& backend, const std::string& after) {
  const std::string before = after.starts_with("before ") ? after.substr(7) : "";
  const int64_t stages = spec.mesh.size_of("stage");
  std::vector<std::string> known{"memory", "collectives"};
  std::vector<std::string> texts;  // of the stages, which go through the passes one after another
  std::string previous;
  const std::vector<Plan> plans = plan_train_stages(spec, backend, [&](std::string_view pass, const Plan& current) {
    known.emplace_back(pass);
    if (pass == "cut") previous.clear();  // the first one
    if (pass == before && !previous.empty()) texts.push_back(previous);
    if (pass == after) texts.push_back(list_programs(current));
    if (!before.empty()) previous = list_programs(current);
  });
  if (after == "memory" || after == "collectives") {
    for (const Plan& plan : plans) texts.push_back(after == "memory" ? list_memory(plan) : list_collectives(plan));
  }
  if (texts.empty()) throw UserError("explain: there is no pass '" + after + "'" + did_you_mean(after, known));
  if (stages == 1) return texts.front();
  std::string all;
  for (size_t stage = 0; stage < texts.size(); ++stage)
    all += concat_text(stage > 0 ? "\n" : "", "== stage ", stage, " of ", stages, " ==\n", texts[stage]);
  return all;
}

}  // namespace mw
