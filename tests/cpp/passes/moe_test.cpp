// Mixtures of experts on meshes: results and gradients equal those of one rank, whatever the family and the order of its weights' dims.
#include <algorithm>

#include "base/error.h"
#include "golden.h"
#include "layers/moe_losses.h"
#include "layers/norm.h"
#include "ops/harness.h"
#include "ops/ops.h"
#include "passes/differentiate.h"
#include "passes/explain.h"
#include "passes/placement_checker.h"
#include "passes/random_programs.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using Axes = std::vector<std::pair<std::string, int64_t>>;

enum class Family { kMixtral, kDeepseekV2, kDeepseekV3, kGptOss, kLlama4 };
const std::vector<std::pair<const char*, Family>> kFamilies{{"mixtral", Family::kMixtral},
                                                            {"deepseek_v2", Family::kDeepseekV2},
                                                            {"deepseek_v3", Family::kDeepseekV3},
                                                            {"gpt_oss", Family::kGptOss},
                                                            {"llama4", Family::kLlama4}};

const Dim kBatch{"batch", 8}, kSeq{"seq", 4}, kEmbed{"embed", 8}, kExperts{"experts", 8}, kExpertMlp{"expert_mlp", 4},
    kGateUp{"gate_up", 2}, kMlp{"mlp", 8};

Tensor parameter(Builder& b, const std::string& name, std::vector<Dim> dims) { return b.parameter(name, {DType::kF32, std::move(dims)}); }

MoeWeights weights_of(Builder& b, Family family) {
  MoeWeights w{.router = parameter(b, "router", {kExperts, kEmbed}), .down = {}};
  if (family == Family::kGptOss || family == Family::kLlama4) {
    w.gate_up = family == Family::kGptOss ? parameter(b, "gate_up", {kExperts, kEmbed, kExpertMlp, kGateUp})
                                          : parameter(b, "gate_up", {kExperts, kEmbed, kGateUp, kExpertMlp});
    w.down = parameter(b, "down", {kExperts, kExpertMlp, kEmbed});
  } else {
    w.gate = parameter(b, "gate", {kExperts, kExpertMlp, kEmbed});
    w.up = parameter(b, "up", {kExperts, kExpertMlp, kEmbed});
    w.down = parameter(b, "down", {kExperts, kEmbed, kExpertMlp});
  }
  if (family == Family::kGptOss) {
    w.router_bias = parameter(b, "router_bias", {kExperts});
    w.gate_up_bias = parameter(b, "gate_up_bias", {kExperts, kExpertMlp, kGateUp});
    w.down_bias = parameter(b, "down_bias", {kExperts, kEmbed});
  }
  if (family == Family::kDeepseekV3) w.selection_bias = b.input("selection_bias", {DType::kF32, {kExperts}});
  if (family != Family::kMixtral && family != Family::kGptOss) {
    w.shared = GatedMlpWeights{.gate = parameter(b, "shared_gate", {kMlp, kEmbed}),
                               .up = parameter(b, "shared_up", {kMlp, kEmbed}),
                               .down = parameter(b, "shared_down", {kEmbed, kMlp})};
  }
  return w;
}

MoeSettings settings_of(Family family) {
  switch (family) {
    case Family::kMixtral:
      return {.route = {.k = 2, .normalize = true}};
    case Family::kDeepseekV2:
      return {.route = {.k = 3, .groups = 4, .groups_selected = 2, .scaling = 4.0}};
    case Family::kDeepseekV3:
      return {
          .route = {
              .score = "sigmoid", .k = 3, .groups = 4, .groups_selected = 2, .group_score = "top2_sum", .normalize = true, .scaling = 2.5}};
    case Family::kGptOss:
      return {.route = {.score = "softmax_of_top_k", .k = 4}};
    case Family::kLlama4:
      return {.route = {.score = "sigmoid", .k = 1}, .scale_input = true};
  }
  throw InternalError("unknown family");
}

// x + moe(norm(x)), and a loss that every gradient flows from; `balance` adds the terms of the routers.
Program trace_layer(Family family, const MoeSettings& settings, bool balance) {
  Builder b("layer");
  const Tensor x = b.input("x", {DType::kF32, {kBatch, kSeq, kEmbed}});
  const Tensor norm = parameter(b, "norm", {kEmbed});
  const MoeWeights weights = weights_of(b, family);
  std::vector<RouterOutput> routers;
  Tensor y;
  {
    const Scope layer(b, "layers.0");
    const Tensor h = scaled_rms_norm("input_norm", x, norm, 1e-6);
    y = residual_add("output", h, moe(h, weights, settings, &routers));
  }
  Tensor loss = reduce_sum(unary("tanh", y), {"batch", "seq", "embed"});
  if (balance) {
    b.output("y", y);
    const Tensor counted = b.input("token_weights", {DType::kF32, {kBatch, kSeq}});
    b.output("load", expert_load(routers[0], counted));
    loss = loss + load_balance_loss(routers, counted) * 3.0 + router_z_loss(routers[0], counted) +
           sequence_balance_loss(routers[0], counted, settings.route.score == "sigmoid" ? "sigmoid" : "softmax") * 2.0;
  }
  b.output("loss", loss);
  return b.take();
}

std::map<std::string, HostArray> inputs_of(const Program& program) {
  auto inputs = testing::random_inputs(program, 3);
  if (const auto at = inputs.find("token_weights"); at != inputs.end()) {
    for (size_t i = 0; i < at->second.data.size(); ++i) at->second.data[i] = i % 5 == 0 || i / 4 == 6 ? 0.0 : 1.0;  // one row is padding
  }
  return inputs;
}

void expect_near(const std::string& what, const HostArray& a, const HostArray& b) {
  const double difference = testing::relative_difference(a, b);
  if (!(difference < 1e-9)) throw testing::Failure(what + " differs by " + testing::show(difference));
}

void write_parameters(testing::SpmdEvaluator& ranks, const Program& program, const Plan& plan,
                      const std::map<std::string, HostArray>& inputs) {
  for (const ProgramInput& input : program.inputs) {
    if (input.kind == InputKind::kParameter && plan.shared.contains(input.name)) ranks.write(input.name, inputs.at(input.name));
  }
}

void check(Family family, const MoeSettings& settings, const Axes& axes, const Rules& rules = default_rules()) {
  const Program program = trace_layer(family, settings, true);
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.rules = rules;
  options.expert_rows_factor = 8;  // room for the worst: the evaluator does not run again
  const auto inputs = inputs_of(program);
  const Plan plan = plan_gradients(program, {}, options);
  testing::check_placement(plan);
  testing::SpmdEvaluator ranks(plan, options.mesh);
  write_parameters(ranks, program, plan, inputs);
  ranks.run(inputs);
  for (const auto& [name, array] : evaluate_reference(differentiate(program), inputs, {.round_results = false}))
    expect_near(options.mesh.to_string() + ": " + name, ranks.result(name), array);
}

const std::vector<Axes> kMeshes{{{"data", 2}},
                                {{"fsdp", 2}},
                                {{"tensor", 2}},
                                {{"tensor", 4}},
                                {{"data", 2}, {"fsdp", 2}},
                                {{"data", 4}, {"tensor", 2}},
                                {{"fsdp", 2}, {"tensor", 2}},
                                {{"data", 2}, {"fsdp", 2}, {"tensor", 2}},
                                {{"expert", 2}},
                                {{"expert", 4}},
                                {{"data", 2}, {"expert", 2}},
                                {{"fsdp", 2}, {"expert", 2}},
                                {{"expert", 2}, {"tensor", 2}},
                                {{"context", 2}},
                                {{"expert", 2}, {"context", 2}},
                                {{"context", 2}, {"tensor", 2}},
                                {{"fsdp", 2}, {"expert", 2}, {"tensor", 2}},
                                {{"data", 2}, {"fsdp", 2}, {"expert", 2}}};

template <typename Body>
void for_each_family(Body&& body) {
  for (const auto& [name, family] : kFamilies) {
    try {
      body(family);
    } catch (const std::exception& error) {
      throw testing::Failure(std::string(name) + ", " + error.what());
    }
  }
}

struct Step {
  std::map<std::string, HostArray> gradients;
  std::string text;  // of the last backward
};

// Two microbatches with an optimizer, so that gradients are added up in accumulators.
Step training_step(Family family, const Axes& axes, const std::string& remat) {
  const Program program = trace_layer(family, settings_of(family), false);
  std::vector<TrainedParameter> trained;
  for (const ProgramInput& input : program.inputs) {
    if (input.kind == InputKind::kParameter) trained.push_back({input.name, program.type(input.value), true});
  }
  PlanOptions options;
  options.mesh = Mesh(axes);
  options.microbatches = 2;
  options.expert_rows_factor = 4;
  options.remat = parse_remat(remat);
  auto inputs = inputs_of(program);
  inputs["lr"] = testing::scalar(0.0);
  HostArray twice = inputs.at("x");
  twice.type.dims[0].size *= 2;
  for (const double value : inputs.at("x").data) twice.data.push_back(value * 0.5 + 0.1);
  inputs["x"] = twice;
  const Plan plan = plan_training(program, trace_update({.kind = "sgd"}, trained), {}, options);
  testing::check_placement(plan);
  testing::SpmdEvaluator ranks(plan, options.mesh);
  write_parameters(ranks, program, plan, inputs);
  ranks.run(inputs);
  Step step;
  for (const TrainedParameter& p : trained) step.gradients[p.name] = ranks.read("gradient." + p.name);
  for (const Piece& piece : plan.pieces) {
    if (piece.name == "backward" && piece.variant == "last") step.text = piece.program.to_text();
  }
  return step;
}

int64_t count(const std::string& text, const std::string& part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST(moe, layers_on_meshes_equal_one_rank) {
  for_each_family([](Family family) {
    for (const Axes& axes : kMeshes) check(family, settings_of(family), axes);
  });
}

// Whatever axes the rules give to the experts, in whatever order: those that rows have too take part in the exchange.
TEST(moe, random_layers_on_random_meshes) {
  std::mt19937_64 random(5);
  int checked = 0, over_two_axes = 0;
  for (int i = 0; i < 260; ++i) {
    const Family family = kFamilies[random() % kFamilies.size()].second;
    Axes axes;
    for (const char* axis : {"data", "fsdp", "expert", "context", "tensor"}) axes.emplace_back(axis, int64_t{1} << (random() % 3));
    const Mesh mesh(axes);
    const int64_t context = mesh.size_of("context"), tokens_cut = context == 1 ? 1 : context * std::max<int64_t>(2, mesh.size_of("tensor"));
    if (mesh.size() == 1 || mesh.size() > 8 || tokens_cut > kSeq.size) continue;
    Rules rules = default_rules();
    std::vector<std::string> with_experts{"data", "fsdp", "expert", "context"};
    std::shuffle(with_experts.begin(), with_experts.end(), random);
    with_experts.resize(1 + random() % 3);
    for (RuleTable* table : {&rules.compute, &rules.parameters, &rules.gradients, &rules.optimizer}) {
      std::erase_if(*table, [](const RuleRow& row) { return row.dim == "experts"; });
      if (table != &rules.compute && random() % 4 == 0) continue;  // stored whole
      const auto at = std::find_if(table->begin(), table->end(), [](const RuleRow& row) { return row.dim == "kv_heads"; });
      RuleTable rows;
      for (const std::string& axis : with_experts) rows.push_back({"experts", axis, false});
      table->insert(at, rows.begin(), rows.end());
    }
    int64_t parts = 1, used = 0;
    for (const std::string& axis : with_experts) {
      parts *= mesh.size_of(axis);
      used += mesh.size_of(axis) > 1;
    }
    over_two_axes += used > 1;
    check(family, settings_of(family), axes, rules);
    ++checked;
  }
  EXPECT(checked > 30);
  EXPECT(over_two_axes > 8);
}

TEST(moe, the_same_choices_are_dropped_on_every_mesh) {
  for (const Family family : {Family::kMixtral, Family::kLlama4}) {
    MoeSettings settings = settings_of(family);
    settings.capacity_factor = 0.5;
    for (const Axes& axes : kMeshes) check(family, settings, axes);
  }
}

TEST(moe, gradients_are_added_up_over_microbatches) {
  for_each_family([](Family family) {
    const Step one = training_step(family, {}, "none");
    // Gradients of expert weights are added up in place.
    EXPECT(count(one.text, "grouped_dot_weights") >= 2);
    EXPECT_EQ(count(one.text, "grouped_dot_weights"), count(one.text, "{accumulate=true, type="));
    for (const Axes& axes :
         {Axes{{"data", 2}}, Axes{{"data", 2}, {"fsdp", 2}, {"tensor", 2}}, Axes{{"fsdp", 2}, {"expert", 2}, {"tensor", 2}}}) {
      for (const char* remat : {"none", "minimal", "full"}) {
        const Step step = training_step(family, axes, remat);
        for (const auto& [name, gradient] : one.gradients)
          expect_near(Mesh(axes).to_string() + ", remat " + remat + ": " + name, step.gradients.at(name), gradient);
      }
    }
  });
}

TEST(moe, a_choice_is_made_once) {
  const Step step = training_step(Family::kMixtral, {{"tensor", 2}}, "full");
  EXPECT_EQ(count(step.text, "= expert_of_rows("), 0);
}

TEST(moe, rows_stay_on_the_rank_of_their_tokens) {
  const Program program = trace_layer(Family::kMixtral, settings_of(Family::kMixtral), false);
  PlanOptions options;
  options.mesh = Mesh({{"data", 2}});
  options.rules.compute = {parse_rule("batch:data")};
  EXPECT_ERROR(
      UserError, { plan_gradients(program, {}, options); }, "put rows of experts at (whole)", "come from tokens at (expert_rows:data)",
      "a rule expert_rows:AXIS");
}

TEST(moe, rows_are_never_sent) {
  for_each_family([](Family family) {
    const Program program = trace_layer(family, settings_of(family), false);
    PlanOptions options;
    options.mesh = Mesh({{"data", 2}, {"tensor", 2}});
    const Plan plan = plan_gradients(program, {}, options);
    for (const Op& op : plan.pieces.at(0).program.ops) {
      if (communicates(op)) EXPECT(!plan.pieces[0].program.type(op.operands[0]).has("expert_rows"));
    }
  });
}

// Gradients of expert weights are complete on the rank of the expert; those of the router are not.
TEST(moe, weights_of_experts_are_not_reduced_over_their_axis) {
  for_each_family([](Family family) {
    const Program program = trace_layer(family, settings_of(family), false);
    PlanOptions options;
    options.mesh = Mesh({{"expert", 4}});
    const Plan plan = plan_gradients(program, {}, options);
    const Program& piece = plan.pieces.at(0).program;
    for (const Op& op : piece.ops) {
      const std::string_view name = op.def->name;
      if (name != "all_gather" && name != "all_reduce" && name != "reduce_scatter") continue;
      const Type& type = piece.type(op.operands[0]);
      // Results are handed out whole; nothing reads them.
      const bool gathers_a_result = name == "all_gather" && std::any_of(piece.outputs.begin(), piece.outputs.end(),
                                                                        [&](const auto& output) { return output.value == op.results[0]; });
      if (type.has("experts") && type.has("expert_mlp") && !gathers_a_result)
        throw testing::Failure(std::string(name) + " of " + to_string(type));
    }
    EXPECT_EQ(plan.expert_rows.mean, 8 * 4 / 4 * settings_of(family).route.k);
    EXPECT(plan.expert_rows.bound >= plan.expert_rows.mean && plan.expert_rows.bound <= plan.expert_rows.worst);
  });
}

TEST(moe, collectives_of_a_layer) {
  PlanOptions options;
  options.mesh = Mesh({{"fsdp", 2}, {"expert", 2}});
  const Plan plan = plan_gradients(trace_layer(Family::kMixtral, settings_of(Family::kMixtral), false), {}, options);
  testing::expect_golden("collectives/fsdp_expert_layer.txt", list_collectives(plan, Sources::kWithout));
}

TEST(moe, rows_travel_twice_in_each_direction) {
  const Program program = trace_layer(Family::kMixtral, settings_of(Family::kMixtral), false);
  PlanOptions options;
  options.mesh = Mesh({{"expert", 2}});
  const std::string text = plan_gradients(program, {}, options).pieces.at(0).program.to_text();
  EXPECT_EQ(count(text, "= expert_counts("), 1);
  EXPECT_EQ(count(text, "= dispatched_experts("), 1);
  EXPECT_EQ(count(text, "= expert_dispatch("), 2);
  EXPECT_EQ(count(text, "= expert_return("), 2);
  options.rules.compute = {parse_rule("batch:expert"), parse_rule("expert_rows:expert")};  // no experts:expert
  EXPECT_EQ(count(plan_gradients(program, {}, options).pieces.at(0).program.to_text(), "expert_dispatch"), 0);
}

// The biases of the down projection are looked up where the tokens are.
TEST(moe, biases_behind_the_experts_do_not_travel) {
  const Program program = trace_layer(Family::kGptOss, settings_of(Family::kGptOss), false);
  PlanOptions options;
  options.mesh = Mesh({{"expert", 2}});
  const std::string text = plan_gradients(program, {}, options).pieces.at(0).program.to_text();
  EXPECT_EQ(count(text, "= expert_dispatch("), 2);
  EXPECT_EQ(count(text, "= expert_return("), 2);
}

// What a layer hands out of them has the order that it has without this axis: rank by rank of the tokens.
TEST(moe, rows_that_are_results_come_back) {
  Builder b("layer");
  const Tensor x = b.input("x", {DType::kF32, {kBatch, kSeq, kEmbed}});
  const Tensor scores = b.input("scores", {DType::kF32, {kBatch, kSeq, kExperts}});
  const Tensor weight = parameter(b, "weight", {kExperts, kExpertMlp, kEmbed});
  const Tensor indices = top_k(scores, "experts", {"top_k", 2}).second;
  b.output("hidden", grouped_dot(to_expert_rows(x, indices, 8), weight, expert_of_rows(indices, 8), {"embed"}));
  const Program program = b.take();
  const auto inputs = inputs_of(program);
  std::vector<HostArray> hidden;
  for (const char* axis : {"data", "expert"}) {
    PlanOptions options;
    options.mesh = Mesh({{axis, 4}});
    options.expert_rows_factor = 8;
    const Plan plan = plan_single(program, "layer", options);
    testing::SpmdEvaluator ranks(plan, options.mesh);
    write_parameters(ranks, program, plan, inputs);
    ranks.run(inputs);
    hidden.push_back(ranks.result("hidden"));
  }
  expect_near("hidden", hidden[1], hidden[0]);
}

TEST(moe, experts_that_do_not_divide) {
  const Program program = trace_layer(Family::kMixtral, settings_of(Family::kMixtral), false);
  PlanOptions options;
  options.mesh = Mesh({{"expert", 16}});
  EXPECT_ERROR(
      UserError, { plan_gradients(program, {}, options); }, "mesh axis 'expert' of size 16 does not divide dim 'experts' of size 8",
      "nearest sizes that work: 16");
}

TEST(moe, other_ops_do_not_touch_rows_that_travel) {
  Builder b("layer");
  const Tensor x = b.input("x", {DType::kF32, {kBatch, kSeq, kEmbed}});
  const Tensor indices = b.input("indices", {DType::kI32, {kBatch, kSeq, {"top_k", 2}}});
  b.output("loss", reduce_sum(to_expert_rows(x, indices, 8), {"expert_rows", "embed"}));
  PlanOptions options;
  options.mesh = Mesh({{"expert", 2}});
  EXPECT_ERROR(
      UserError, { plan_single(b.take(), "layer", options); }, "rows of experts are spread over ranks by a run's choices",
      "mesh axis 'expert'");
}

TEST(moe, wants_weights_for_gate_and_up) {
  Builder b("layer");
  const Tensor x = b.input("x", {DType::kF32, {kBatch, kSeq, kEmbed}});
  const MoeWeights w{.router = parameter(b, "router", {kExperts, kEmbed}), .down = parameter(b, "down", {kExperts, kEmbed, kExpertMlp})};
  EXPECT_ERROR(UserError, { moe(x, w, {.route = {.k = 2}}); }, "neither gate and up nor gate_up weights");
}

TEST(moe, the_selection_bias_moves_towards_the_mean_load) {
  Builder b("update");
  const Tensor bias = b.input("bias", {DType::kF32, {{"experts", 4}}}), load = b.input("load", {DType::kF32, {{"experts", 4}}});
  b.output("updated", balanced_selection_bias(bias, load, 0.25));
  const HostArray four{{DType::kF32, {{"experts", 4}}}, {1, 2, 3, 4}};
  HostArray loads = four;
  loads.data = {5, 1, 2, 0};
  const auto results = evaluate_reference(b.program(), {{"bias", four}, {"load", loads}});
  EXPECT(results.at("updated").data == (std::vector<double>{0.75, 2.25, 3, 4.25}));
}

}  // namespace mw
