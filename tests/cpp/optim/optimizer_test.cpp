// The updates of a pipeline's stages, run together, are the update of the whole model.
#include "optim/optimizer.h"

#include <optional>

#include "base/error.h"
#include "comm/communicator.h"
#include "exec/reference/evaluate.h"
#include "ir/builder.h"
#include "passes/edit.h"
#include "passes/pipeline.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using Arrays = std::map<std::string, HostArray>;

constexpr int64_t kStages = 3;
// Collectives name axes of a mesh; any axis will do for the stages here.
const Mesh kMesh({{"data", kStages}});
const OptimizerConfig kAdamW{.kind = "adamw", .weight_decay = 0.1, .clip = 0.5};

TrainedParameter parameter(const std::string& name, int64_t rows) { return {name, Type{DType::kF32, {{"vocab", rows}, {"embed", 4}}}}; }

// The embedding is on the first and the last stage.
const std::vector<std::vector<TrainedParameter>> kOfStage{
    {parameter("embedding", 6), parameter("a", 2)}, {parameter("b", 3)}, {parameter("c", 5), parameter("embedding", 6)}};

OverStages over_stages(size_t stage) {
  OverStages over{.axis = "data:1:3", .stages = kStages};
  if (stage != 1) over.summed["embedding"] = "data:2:2";
  if (stage == 2) over.counted_elsewhere.insert("embedding");
  return over;
}

bool is_collective(const Op& op) { return op.def->name == "all_reduce"; }

// `program` with the results of its first collectives given as inputs "reduced.0", ...; `operand`: up to what the next one reads.
Program with_reduced(const Program& program, size_t known, bool operand) {
  Builder builder(program.name);
  Copier copier(program, builder);
  copier.copy_inputs();
  size_t seen = 0;
  for (const Op& op : program.ops) {
    if (!is_collective(op)) {
      copier.copy(op);
    } else if (seen < known) {
      copier.map(op.results[0], builder.input(concat_text("reduced.", seen), program.type(op.results[0])));
      ++seen;
    } else {
      MW_CHECK(operand, "a collective is left");
      builder.output("operand", copier[op.operands[0]], OutputKind::kResult);
      break;
    }
  }
  if (!operand) copier.copy_outputs();
  Program result = builder.take();
  remove_dead_ops(result);
  remove_unused_inputs(result);
  return result;
}

Arrays run(const Program& program, const Arrays& arrays) {
  Arrays inputs;
  for (const ProgramInput& input : program.inputs) inputs[input.name] = arrays.at(input.name);
  return evaluate_reference(program, inputs, {.round_results = false});
}

// All stages, a collective as soon as its whole group has come to it.
std::vector<Arrays> run_together(const std::vector<Program>& programs, std::vector<Arrays> arrays) {
  std::vector<size_t> done(programs.size(), 0);
  const auto next = [&](size_t s) -> const Op* {
    size_t seen = 0;
    for (const Op& op : programs[s].ops) {
      if (is_collective(op) && seen++ == done[s]) return &op;
    }
    return nullptr;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = 0; s < programs.size(); ++s) {
      const Op* op = next(s);
      if (!op) continue;
      const std::vector<std::string>& axes = op->attributes.names("axes");
      const Group group = make_group(kMesh, static_cast<int64_t>(s), {parse_group_part(axes.at(0))});
      EXPECT_EQ(op->attributes.integer("parts"), group.size());
      bool all_here = true;
      for (const int64_t r : group.ranks) {
        const Op* other = next(static_cast<size_t>(r));
        all_here = all_here && other && other->attributes.names("axes") == axes;
      }
      if (!all_here) continue;
      std::optional<HostArray> sum;
      for (const int64_t r : group.ranks) {
        const auto rank = static_cast<size_t>(r);
        const HostArray operand = run(with_reduced(programs[rank], done[rank], true), arrays[rank]).at("operand");
        if (!sum) {
          sum = operand;
        } else {
          for (size_t i = 0; i < sum->data.size(); ++i) sum->data[i] += operand.data[i];
        }
      }
      for (const int64_t r : group.ranks) {
        const auto rank = static_cast<size_t>(r);
        arrays[rank][concat_text("reduced.", done[rank]++)] = *sum;
      }
      moved = true;
    }
  }
  std::vector<Arrays> results;
  for (size_t s = 0; s < programs.size(); ++s) {
    MW_CHECK(!next(s), "stage ", s, " waits for ever");
    results.push_back(run(with_reduced(programs[s], done[s], false), arrays[s]));
  }
  return results;
}

void expect_near(const HostArray& found, const HostArray& expected) {
  EXPECT_EQ(found.data.size(), expected.data.size());
  for (size_t i = 0; i < found.data.size(); ++i) EXPECT_NEAR(found.data[i], expected.data[i], 1e-12);
}

}  // namespace

TEST(optimizer, stages_update_as_one_model_does) {
  Arrays whole{{"lr", testing::scalar(0.01)}, {"correction1", testing::scalar(0.1)}, {"correction2", testing::scalar(0.001)}};
  std::vector<TrainedParameter> all;
  uint64_t seed = 1;
  std::vector<Arrays> of_stage(kOfStage.size(), whole);
  for (size_t s = 0; s < kOfStage.size(); ++s) {
    for (const TrainedParameter& p : kOfStage[s]) {
      const HostArray gradient = testing::random_array(p.type, ++seed);
      of_stage[s]["gradient." + p.name] = gradient;
      if (!whole.contains(p.name)) {
        all.push_back(p);
        whole["gradient." + p.name] = gradient;
        for (const char* state : {"", "first_moment.", "second_moment."}) {
          whole[state + p.name] = testing::random_array(p.type, ++seed, 0.1, 1.0);
        }
      } else {
        HostArray& sum = whole["gradient." + p.name];
        for (size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += gradient.data[i];
      }
      for (const char* state : {"", "first_moment.", "second_moment."}) of_stage[s][state + p.name] = whole.at(state + p.name);
    }
  }
  const Arrays expected = run(trace_update(kAdamW, all), whole);
  EXPECT(expected.at("grad_norm").data[0] > 2 * kAdamW.clip);  // the clipping works
  std::vector<Program> programs;
  for (size_t s = 0; s < kOfStage.size(); ++s) programs.push_back(trace_update(kAdamW, kOfStage[s], {}, over_stages(s)));
  size_t compared = 0;
  for (const Arrays& results : run_together(programs, of_stage)) {
    for (const auto& [name, array] : results) {
      expect_near(array, expected.at(name));
      ++compared;
    }
  }
  EXPECT_EQ(compared, size_t{3 + 5 * 3});
}

// A stage whose only parameter another one counts still takes part in the norm.
TEST(optimizer, a_stage_that_counts_nothing_gives_zero_to_the_norm) {
  OverStages over{.axis = "data:1:2", .stages = 2};
  over.counted_elsewhere.insert("embedding");
  const Program update = trace_update(kAdamW, {parameter("embedding", 6)}, {}, over);
  const Program operand = with_reduced(update, 0, true);
  EXPECT_EQ(run(operand, {}).at("operand").data[0], 0.0);
}

// The sum over stages is made on shards: nothing is gathered for it.
TEST(optimizer, a_sum_over_stages_keeps_shards) {
  OverStages over{.axis = "data:1:2", .stages = 2};
  over.summed["embedding"] = "data:1:2";
  PlanOptions options;
  options.mesh = Mesh({{"fsdp", 2}});
  const Plan plan = plan_single(trace_update(kAdamW, {parameter("embedding", 6)}, {}, over), "update", options);
  const Program& program = plan.pieces.at(0).program;
  std::vector<int64_t> summed;  // elements
  for (const Op& op : program.ops) {
    EXPECT(op.def->name != "all_gather");
    if (is_collective(op) && op.attributes.names("axes").at(0) == "data:1:2") summed.push_back(program.type(op.results[0]).elements());
  }
  EXPECT((summed == std::vector<int64_t>{12, 1}));  // half of the gradient, and the norm
}

}  // namespace mw
