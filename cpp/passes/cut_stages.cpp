#include "passes/cut_stages.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/layer_scope.h"
#include "ops/elementwise.h"
#include "passes/cut.h"
#include "passes/differentiate.h"
#include "passes/edit.h"
#include "passes/model_parts.h"

namespace mw {
namespace {

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// Of one gradient, the sums over the uses of its parameter by part. Sums whose terms come from several parts are taken apart.
std::map<int64_t, std::vector<ValueId>> terms_by_part(const Program& program, const ModelParts& parts, ValueId gradient) {
  std::map<int64_t, std::vector<ValueId>> terms;
  const std::function<void(ValueId)> take = [&](ValueId id) {
    const int32_t producer = parts.producer(id);
    if (producer >= 0 && !parts.is_free(producer)) {
      const Op& op = program.ops[static_cast<size_t>(producer)];
      const auto from_elsewhere = [&](ValueId operand) {
        const int32_t from = parts.producer(operand);
        return from >= 0 && !parts.is_free(from) && parts.part(from) != parts.part(producer);
      };
      if (op.def->name == "add" && std::any_of(op.operands.begin(), op.operands.end(), from_elsewhere)) {
        for (const ValueId operand : op.operands) take(operand);
        return;
      }
    }
    terms[producer < 0 || parts.is_free(producer) ? parts.count() - 1 : parts.part(producer)].push_back(id);
  };
  take(gradient);
  return terms;
}

// A result as one part makes it: the sum of `terms`.
struct PartResult {
  const ProgramOutput* output;
  std::vector<ValueId> terms;
};

class StageCutter {
 public:
  // `trains`: the Program has a backward, whose pieces hand out the results; else the forward does.
  StageCutter(const Program& program, int64_t parts, const std::vector<int64_t>& layers, bool trains)
      : program_(program), parts_(program, parts, layers), trains_(trains), of_part_(static_cast<size_t>(parts)) {
    for (const ProgramOutput& output : program.outputs) {
      if (!trains) {
        of(home(output.value)).results.push_back({&output, {output.value}});
        continue;
      }
      for (auto& [part, terms] : terms_by_part(program, parts_, output.value)) of(part).results.push_back({&output, std::move(terms)});
    }
    // What is read where, from the results backwards: only what somebody needs is made and sent.
    for (int64_t part = 0; part < parts; ++part) {
      for (const PartResult& result : of(part).results) {
        for (const ValueId id : result.terms) need(id, part, trains);
      }
    }
  }

  Piece forward(int64_t part, const std::string& name = "forward") const {
    Builder builder(name);
    Copier copier(program_, builder);
    const OnePart& own = of(part);
    declare_inputs(program_, builder, copier);
    carry_in(builder, copier, own.received);
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      if (own.forward.contains(static_cast<int32_t>(i))) copy_with_remade(copier, program_.ops[i]);
    }
    std::set<ValueId> leaving = own.carried;
    for (const ValueId id : own.sent) {
      if (!own.received.contains(id)) leaving.insert(id);  // else it stands there already
    }
    for (const ValueId id : leaving) builder.output(crossing_name(program_, id), copier[id], OutputKind::kCarried);
    if (!trains_) {
      for (const PartResult& result : own.results) {
        remake(program_, copier, result.terms[0]);
        builder.output(result.output->name, copier[result.terms[0]], result.output->kind);
      }
    }
    return finish(builder, name, "", own.received, own.sent);
  }

  // Whether the first of the two halves of the backward adds up gradients too.
  bool sums_early(int64_t part) const {
    return std::any_of(of(part).results.begin(), of(part).results.end(),
                       [&](const PartResult& result) { return !can_wait(of(part), result); });
  }

  // `inputs` and `weights`: which of the two halves of the backward; both: all of it.
  Piece backward(int64_t part, bool first, bool last, bool inputs, bool weights) const {
    const std::string name = inputs && weights ? "backward" : inputs ? "backward_input" : "backward_weight";
    Builder builder(name);
    Copier copier(program_, builder);
    const OnePart& own = of(part);
    const std::set<int32_t> early = inputs && weights ? std::set<int32_t>{} : early_ops(own);
    declare_inputs(program_, builder, copier);
    for (const std::set<ValueId>* ids : {&own.carried, &own.received, &own.gradients_received}) carry_in(builder, copier, *ids);
    std::set<ValueId> between;  // what the second half reads of the first
    if (inputs != weights) {
      const auto read = [&](ValueId id) {
        const int32_t producer = parts_.producer(id);
        if (producer >= 0 && early.contains(producer)) between.insert(id);
      };
      for (const int32_t op : own.backward) {
        if (early.contains(op)) continue;
        for (const ValueId id : program_.ops[static_cast<size_t>(op)].operands) each_kept(id, read);
      }
      for (const PartResult& result : own.results) {
        if (!can_wait(own, result)) continue;
        for (const ValueId id : result.terms) each_kept(id, read);
      }
    }
    if (!inputs) carry_in(builder, copier, between);
    // Each as soon as its last term is there: it need not be held in the layout in which it was made.
    std::map<int32_t, std::vector<const PartResult*>> results_behind;  // by op; -1: nothing of this piece
    for (const PartResult& result : own.results) {
      if (can_wait(own, result) ? !weights : !inputs) continue;
      int32_t last_op = -1;
      for (const ValueId id : result.terms) {
        each_kept(id, [&](ValueId value) {
          if (!copier.has(value)) last_op = std::max(last_op, parts_.producer(value));
        });
      }
      results_behind[last_op].push_back(&result);
    }
    const auto deliver = [&](int32_t op) {
      const auto at = results_behind.find(op);
      if (at == results_behind.end()) return;
      for (const PartResult* result : at->second) {
        std::optional<Tensor> sum;
        for (const ValueId id : result->terms) {
          remake(program_, copier, id);
          sum = sum ? *sum + copier[id] : copier[id];
        }
        sum_up(builder, *result->output, *sum, first, last);
      }
      results_behind.erase(at);
    };
    deliver(-1);
    for (size_t i = 0; i < program_.ops.size(); ++i) {
      const auto op = static_cast<int32_t>(i);
      if (!own.backward.contains(op) || (inputs && !weights && !early.contains(op)) || (weights && !inputs && early.contains(op))) continue;
      copy_with_remade(copier, program_.ops[i]);
      deliver(op);
    }
    MW_CHECK(results_behind.empty(), "a result of part ", part, " was not made");
    std::set<ValueId> sent;
    if (inputs) {
      sent = own.gradients_sent;
      std::set<ValueId> leaving = weights ? std::set<ValueId>{} : between;
      for (const ValueId id : sent) {
        if (!own.gradients_received.contains(id)) leaving.insert(id);
      }
      for (const ValueId id : leaving) {
        remake(program_, copier, id);
        builder.output(crossing_name(program_, id), copier[id], OutputKind::kCarried);
      }
    }
    return finish(builder, name, weights || sums_early(part) ? variant_name(first, last) : "",
                  inputs ? own.gradients_received : std::set<ValueId>{}, sent);
  }

  // Parameters that a part's pieces read or train.
  std::set<std::string> parameters_of(int64_t part) const {
    std::set<std::string> names;
    const OnePart& own = of(part);
    const auto add = [&](ValueId id) {
      if (const auto at = parts_.parameters().find(id); at != parts_.parameters().end()) names.insert(at->second);
    };
    const auto read = [&](int32_t op) {
      for (const ValueId id : program_.ops[static_cast<size_t>(op)].operands) each_kept(id, add);
    };
    for (const int32_t op : own.forward) read(op);
    for (const int32_t op : own.backward) read(op);
    for (const PartResult& result : own.results) {
      if (starts_with(result.output->name, kGradientPrefix))
        names.insert(result.output->name.substr(std::string_view(kGradientPrefix).size()));
    }
    return names;
  }

 private:
  struct OnePart {
    std::vector<PartResult> results;
    std::set<int32_t> forward, backward;  // ops, without those that are remade
    std::set<ValueId> carried;            // from its forward to its backward
    std::set<ValueId> received, sent;     // by the forward
    std::set<ValueId> gradients_received, gradients_sent;
  };

  // Gradients of a layer's weights may be made in the second half of the backward. Others may not: for the head's, the gradient of the
  // logits would have to be kept until then. Where no part waits for the first half, it makes nothing.
  bool can_wait(const OnePart& own, const PartResult& result) const {
    if (own.gradients_sent.empty()) return true;
    return std::all_of(result.terms.begin(), result.terms.end(), [&](ValueId id) {
      const int32_t producer = parts_.producer(id);
      if (producer < 0 || !parts_.is_backward(producer)) return false;
      return parse_layer_scope(program_.scopes[static_cast<size_t>(program_.ops[static_cast<size_t>(producer)].scope)]).has_value();
    });
  }

  // What the first half of the backward makes.
  std::set<int32_t> early_ops(const OnePart& own) const {
    std::set<ValueId> values = own.gradients_sent;
    for (const PartResult& result : own.results) {
      if (!can_wait(own, result)) values.insert(result.terms.begin(), result.terms.end());
    }
    return ops_behind(values, own.backward);
  }

  // Where a value is made; what depends on the batch alone, with the last part.
  int64_t home(ValueId id) const {
    const int32_t producer = parts_.producer(id);
    return producer < 0 || parts_.is_free(producer) ? parts_.count() - 1 : parts_.part(producer);
  }

  OnePart& of(int64_t part) { return of_part_[static_cast<size_t>(part)]; }
  const OnePart& of(int64_t part) const { return of_part_[static_cast<size_t>(part)]; }

  // Calls body for the values behind views and constants that have to be there: `id` itself unless it is remade.
  template <typename Body>
  void each_kept(ValueId id, Body&& body) const {
    const int32_t producer = parts_.producer(id);
    if (producer < 0 || !is_remade(program_.ops[static_cast<size_t>(producer)])) return body(id);
    for (const ValueId operand : program_.ops[static_cast<size_t>(producer)].operands) each_kept(operand, body);
  }

  void need(ValueId id, int64_t part, bool in_backward) {
    each_kept(id, [&](ValueId value) { need_kept(value, part, in_backward); });
  }

  void need_kept(ValueId id, int64_t part, bool in_backward) {
    const int32_t producer = parts_.producer(id);
    if (producer < 0) return;
    if (parts_.is_backward(producer)) {
      const int64_t from = parts_.part(producer);
      MW_CHECK(in_backward && from >= part, crossing_name(program_, id), " of part ", from, " is read by part ", part);
      make(producer, from, true);
      for (int64_t p = from; p > part; --p) {
        of(p).gradients_sent.insert(id);
        of(p - 1).gradients_received.insert(id);
      }
      return;
    }
    const int64_t from = parts_.is_free(producer) ? part : parts_.part(producer);
    MW_CHECK(from <= part, crossing_name(program_, id), " of part ", from, " is read by part ", part);
    make(producer, from, false);
    for (int64_t p = from; p < part; ++p) {
      of(p).sent.insert(id);
      of(p + 1).received.insert(id);
    }
    if (in_backward && from == part) of(part).carried.insert(id);
  }

  void make(int32_t op, int64_t part, bool in_backward) {
    if (!(in_backward ? of(part).backward : of(part).forward).insert(op).second) return;
    for (const ValueId id : program_.ops[static_cast<size_t>(op)].operands) need(id, part, in_backward);
  }

  // The ops among `ops` that these values come from.
  std::set<int32_t> ops_behind(const std::set<ValueId>& values, const std::set<int32_t>& ops) const {
    std::set<int32_t> behind;
    const std::function<void(ValueId)> follow = [&](ValueId id) {
      each_kept(id, [&](ValueId value) {
        const int32_t producer = parts_.producer(value);
        if (producer < 0 || !ops.contains(producer) || !behind.insert(producer).second) return;
        for (const ValueId operand : program_.ops[static_cast<size_t>(producer)].operands) follow(operand);
      });
    };
    for (const ValueId id : values) follow(id);
    return behind;
  }

  void carry_in(Builder& builder, Copier& copier, const std::set<ValueId>& ids) const {
    for (const ValueId id : ids) copier.map(id, builder.carried(crossing_name(program_, id), program_.type(id)));
  }

  void copy_with_remade(Copier& copier, const Op& op) const {
    for (const ValueId id : op.operands) remake(program_, copier, id);
    copier.copy(op);
  }

  // Mail is named by value; whose it is says the caller, who knows the stages. What only passes through stays an input.
  Piece finish(Builder& builder, const std::string& name, const std::string& variant, const std::set<ValueId>& received,
               const std::set<ValueId>& sent) const {
    Piece piece{.name = name, .variant = variant, .program = builder.take()};
    remove_dead_ops(piece.program);
    std::set<std::string> mail;
    const auto add = [&](const std::set<ValueId>& ids, std::vector<Mail>& list) {
      for (const ValueId id : ids) {
        list.push_back({crossing_name(program_, id), -1});
        mail.insert(list.back().name);
      }
    };
    add(received, piece.receives);
    add(sent, piece.sends);
    std::vector<bool> used(piece.program.values.size(), false);
    for (const Op& op : piece.program.ops) {
      for (const ValueId id : op.operands) used[static_cast<size_t>(id)] = true;
    }
    for (const ProgramOutput& output : piece.program.outputs) used[static_cast<size_t>(output.value)] = true;
    std::erase_if(piece.program.inputs, [&](const ProgramInput& input) {
      return !used[static_cast<size_t>(input.value)] && !(input.kind == InputKind::kCarried && mail.contains(input.name));
    });
    return piece;
  }

  const Program& program_;
  ModelParts parts_;
  bool trains_;
  std::vector<OnePart> of_part_;
};

// The Plan of one stage: its pieces as its rows ask for them.
class StageMaker {
 public:
  StageMaker(const StageCutter& cutter, const PipelineShape& shape, int64_t stage, std::string forward_name = "forward")
      : cutter_(cutter), shape_(shape), stage_(stage), forward_name_(std::move(forward_name)) {}

  Plan make(const std::vector<StageRow>& rows) {
    for (const StageRow& row : rows) plan_.order.push_back({piece_of(row), static_cast<int32_t>(row.microbatch)});
    return std::move(plan_);
  }

 private:
  int32_t piece_of(const StageRow& row) {
    const int64_t part = row.chunk * shape_.stages + stage_;
    const bool sums = ends_backward(row.work) || (row.work == StageWork::kBackwardInput && cutter_.sums_early(part));
    const bool first = sums && row.microbatch == 0, last = sums && row.microbatch + 1 == shape_.microbatches;
    const auto [at, added] = known_.emplace(std::tuple(row.work, row.chunk, first, last), static_cast<int32_t>(plan_.pieces.size()));
    if (!added) return at->second;
    Piece piece = row.work == StageWork::kForward
                      ? cutter_.forward(part, forward_name_)
                      : cutter_.backward(part, first, last, row.work != StageWork::kBackwardWeight, row.work != StageWork::kBackwardInput);
    piece.chunk = static_cast<int32_t>(row.chunk);
    const bool forward = row.work == StageWork::kForward;
    const auto before = static_cast<int32_t>((stage_ + shape_.stages - 1) % shape_.stages),
               behind = static_cast<int32_t>((stage_ + 1) % shape_.stages);
    for (Mail& mail : piece.receives) mail.stage = forward ? before : behind;
    for (Mail& mail : piece.sends) mail.stage = forward ? behind : before;
    plan_.pieces.push_back(std::move(piece));
    return at->second;
  }

  const StageCutter& cutter_;
  const PipelineShape& shape_;
  int64_t stage_;
  std::string forward_name_;
  Plan plan_;
  std::map<std::tuple<StageWork, int64_t, bool, bool>, int32_t> known_;
};

void assign_parameters(const StageCutter& cutter, const PipelineShape& shape, StagePlans& plans) {
  std::map<std::string, std::set<int64_t>> stages_of;
  for (int64_t stage = 0; stage < shape.stages; ++stage) {
    std::set<std::string> seen;
    for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
      for (const std::string& name : cutter.parameters_of(chunk * shape.stages + stage)) {
        MW_CHECK(seen.insert(name).second, "parameter ", name, " is used by two chunks of stage ", stage);
        stages_of[name].insert(stage);
      }
    }
  }
  plans.parameters.resize(plans.stages.size());
  for (const auto& [name, stages] : stages_of) {
    for (const int64_t stage : stages) plans.parameters[static_cast<size_t>(stage)].insert(name);
    if (stages.size() > 1) plans.shared_parameters[name] = {stages.begin(), stages.end()};
  }
}

}  // namespace

StagePlans cut_into_stages(const Program& training, PipelineOrder order, const PipelineShape& shape, const std::vector<int64_t>& layers) {
  check_pipeline(order, shape);
  const StageCutter cutter(training, shape.stages * shape.chunks, layers, true);
  StagePlans plans;
  for (int64_t stage = 0; stage < shape.stages; ++stage)
    plans.stages.push_back(StageMaker(cutter, shape, stage).make(stage_order(order, shape, stage)));
  assign_parameters(cutter, shape, plans);
  return plans;
}

StagePlans cut_single_into_stages(const Program& program, const std::string& name, int64_t stages, int64_t chunks,
                                  const std::vector<int64_t>& layers) {
  const PipelineShape shape{.stages = stages, .chunks = chunks, .microbatches = 1};
  const StageCutter cutter(program, stages * chunks, layers, false);
  StagePlans plans;
  for (int64_t stage = 0; stage < stages; ++stage) {
    std::vector<StageRow> rows;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) rows.push_back({StageWork::kForward, chunk, 0});
    plans.stages.push_back(StageMaker(cutter, shape, stage, name).make(rows));
  }
  assign_parameters(cutter, shape, plans);
  return plans;
}

void add_updates(StagePlans& plans, const std::function<Program(int64_t stage)>& trace) {
  for (size_t stage = 0; stage < plans.stages.size(); ++stage) {
    Plan& plan = plans.stages[stage];
    plan.order.push_back({static_cast<int32_t>(plan.pieces.size()), 0});
    plan.pieces.push_back({.name = "update", .variant = "", .program = trace(static_cast<int64_t>(stage))});
  }
}

}  // namespace mw
