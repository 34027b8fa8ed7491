#include "planner/step_time.h"

#include "base/error.h"
#include "config/model_lookup.h"
#include "ops/registry.h"
#include "planner/memory_timeline.h"
#include "planner/train_plan.h"
#include "runner.h"

namespace mw {
namespace {

// Half of 2e12 (bfloat16) and 1e12 FLOP/s, of 1e11 bytes/s, and of 1e10 within 4 chips and 1e9 beyond.
Hardware chip() {
  Hardware h{.name = "x", .note = {}, .peak_flops = {{"float32", 1e12}, {"bfloat16", 2e12}, {"float8", 4e12}}, .network = {}};
  h.memory_bytes = 8e9;
  h.memory_bandwidth = 1e11;
  h.network = {{"inner", 4, 1e10, 1e-6}, {"outer", 0, 1e9, 1e-5}};
  h.flops_efficiency = h.bandwidth_efficiency = 0.5;
  return h;
}

Piece piece_of(const std::string& body) {
  return {.name = "forward", .variant = "", .program = parse_program("program p {\n" + body + "}\n", find_op)};
}

TEST(planner, an_op_takes_the_longer_of_its_flops_and_its_bytes) {
  const Hardware h = chip();
  const Piece piece = piece_of(R"(
    parameter %0 "w" : bf16[mlp=2000, embed=1000]
    input %1 "x" : bf16[tokens=4000, embed=1000]
    input %2 "one" : bf16[tokens=1, embed=1000]
    %3 = dot(%1, %0) {contract=["embed"]} : bf16[tokens=4000, mlp=2000]
    %4 = dot(%2, %0) {contract=["embed"]} : bf16[tokens=1, mlp=2000]
    %5 = exp(%3) : bf16[tokens=4000, mlp=2000]
    output "y" %4
    output "z" %5
)");
  const CostModel model(h, Mesh(), {}, {});
  const auto& ops = piece.program.ops;
  EXPECT_NEAR(model.compute(piece.program, ops[0]).seconds, 2.0 * 4000 * 2000 * 1000 / 1e12, 1e-9);
  EXPECT(model.compute(piece.program, ops[0]).by_flops);
  EXPECT_NEAR(model.compute(piece.program, ops[1]).seconds, (1000 + 2000 + 2000.0 * 1000) * 2 / 5e10, 1e-9);
  EXPECT(!model.compute(piece.program, ops[1]).by_flops);
  EXPECT_NEAR(model.compute(piece.program, ops[2]).seconds, 2.0 * 4000 * 2000 * 2 / 5e10, 1e-9);
  const CostModel narrow(h, Mesh(), {}, {.dot_dtype = "float8"});
  EXPECT_NEAR(narrow.compute(piece.program, ops[0]).seconds, 0.008, 1e-9);
  EXPECT_ERROR(UserError, { CostModel(h, Mesh(), {}, {.dot_dtype = "float9"}); }, "did you mean 'float8'");
}

double seconds_of(const Mesh& mesh, const std::string& line) {
  const Hardware h = chip();
  const Piece piece = piece_of(R"(
    input %0 "x" : f32[batch=64, embed=1000000]
)" + line + R"(
    output "y" %1
)");
  return CostModel(h, mesh, {}, {}).transfer(piece.program, piece.program.ops[0]).seconds;
}

// 256 MB given or got; half of 1e10 and 1e9 bytes/s.
TEST(planner, a_collective_takes_its_bytes_over_the_slowest_level) {
  const Mesh mesh({{"data", 2}, {"fsdp", 2}, {"tensor", 4}});
  const double mb = 1e6;
  EXPECT_NEAR(seconds_of(mesh, R"(%1 = reduce_scatter(%0) {axes=["tensor:1:4"], dim="batch", parts=4} : f32[batch=16, embed=1000000])"),
              256 * mb * 3 / 4 / 5e9 + 2e-6, 1e-9);
  EXPECT_NEAR(seconds_of(mesh, R"(%1 = all_reduce(%0) {axes=["tensor:1:4"], kind="sum", parts=4} : f32[batch=64, embed=1000000])"),
              2 * 256 * mb * 3 / 4 / 5e9 + 2e-6, 1e-9);
  EXPECT_NEAR(seconds_of(mesh, R"(%1 = all_gather(%0) {axes=["fsdp:1:2"], dim="batch", parts=2} : f32[batch=128, embed=1000000])"),
              256 * mb / 5e8 + 1e-5, 1e-9);
  // 4 ranks of a domain share what crosses to the other one: half of everything, a quarter of it on each.
  EXPECT_NEAR(
      seconds_of(mesh, R"(%1 = reduce_scatter(%0) {axes=["fsdp:1:2", "tensor:1:4"], dim="batch", parts=8} : f32[batch=8, embed=1000000])"),
      256 * mb / 2 / 4 / 5e8 + 2e-6 + 1e-5, 1e-9);
  // Half of a rank's rows stay in its domain of 4.
  EXPECT_NEAR(
      seconds_of(
          Mesh({{"expert", 8}}),
          R"(%1 = all_to_all(%0) {axes=["expert:1:8"], concat_dim="embed", parts=8, split_dim="batch"} : f32[batch=8, embed=8000000])"),
      256 * mb / 2 / 5e8 + 2e-6 + 1e-5, 1e-9);
}

// Two layers, each gathers 4 MB over 4 neighbours (2.4 ms) and multiplies (4 ms).
const std::string kTwoLayers = R"(
    parameter %0 "a" : bf16[mlp=1000, embed=500]
    parameter %1 "b" : bf16[embed=500, mlp=1000]
    input %2 "x" : bf16[tokens=2000, embed=2000]
    %3 = all_gather(%0) {axes=["fsdp:1:4"], dim="embed", parts=4} : bf16[mlp=1000, embed=2000] @ layers.0
    %4 = dot(%2, %3) {contract=["embed"]} : bf16[tokens=2000, mlp=1000] @ layers.0
    %5 = all_gather(%1) {axes=["fsdp:1:4"], dim="embed", parts=4} : bf16[embed=2000, mlp=1000] @ layers.1
    %6 = dot(%4, %5) {contract=["mlp"]} : bf16[tokens=2000, embed=2000] @ layers.1
    output "y" %6
)";
constexpr double kGather = 3e6 / 5e9 + 2e-6, kDot = 8e9 / 1e12;

TEST(planner, transfers_hide_behind_the_layer_before) {
  const Hardware h = chip();
  const Mesh mesh({{"fsdp", 4}});
  const PieceTime beside = time_piece(piece_of(kTwoLayers), CostModel(h, mesh, {}, {}));
  EXPECT_NEAR(beside.seconds, kGather + 2 * kDot, 1e-9);
  EXPECT_NEAR(beside.exposed_seconds, kGather, 1e-9);
  EXPECT_NEAR(beside.exposed.at("fsdp"), kGather, 1e-9);
  EXPECT_NEAR(beside.transfer_seconds, 2 * kGather, 1e-9);
  EXPECT_EQ(beside.gathered_ahead, int64_t{1000 * 2000 * 2});
  const PieceTime waiting = time_piece(piece_of(kTwoLayers), CostModel(h, mesh, {}, {.overlap = false}));
  EXPECT_NEAR(waiting.seconds, 2 * kGather + 2 * kDot, 1e-9);
  EXPECT_EQ(waiting.spans.size(), size_t{2});
  EXPECT_EQ(waiting.spans[1].scope, std::string("layers.1"));
  EXPECT_NEAR(waiting.spans[1].start, kGather + kDot, 1e-9);
}

TrainPlanSpec tiny_step(const Mesh& mesh) {
  TrainPlanSpec spec{
      .config = find_model_config("tiny", "configs/models"), .mesh = mesh, .optimizer = {.clip = 1.0}, .remat = {}, .losses = {}};
  spec.batch = 8;
  spec.seq = 32;
  return spec;
}

TEST(planner, seconds_of_a_step_are_the_sum_of_what_they_go_to) {
  const Hardware h = chip();
  TrainPlanSpec spec = tiny_step(Mesh({{"fsdp", 2}, {"tensor", 2}}));
  spec.microbatches = 4;
  const Plan plan = plan_train_step(spec, backend_of(h, spec.mesh));
  const StepTime time = time_step(plan, CostModel(h, spec.mesh, plan.expert_rows, {}));
  EXPECT_NEAR(time.seconds, time.flops_seconds + time.bytes_seconds + time.exposed_seconds, 1e-9);
  double scopes = 0, exposed = 0;
  for (const auto& [scope, seconds] : time.scopes) scopes += seconds;
  for (const auto& [axes, seconds] : time.exposed) exposed += seconds;
  EXPECT_NEAR(scopes, time.flops_seconds + time.bytes_seconds, 1e-9);
  EXPECT_NEAR(exposed, time.exposed_seconds, 1e-9);
  EXPECT_EQ(time.pieces[0].runs, int64_t{4});
}

// The mesh of a rank enters through the sizes of its groups only.
TEST(planner, more_ranks_of_data_do_not_take_longer_to_plan) {
  const Hardware h = chip();
  TrainPlanSpec spec = tiny_step(Mesh({{"data", 51200}}));
  spec.batch = 51200;
  const Plan plan = plan_train_step(spec, backend_of(h, spec.mesh));
  TrainPlanSpec few = tiny_step(Mesh({{"data", 2}}));
  few.batch = 2;
  const Plan small = plan_train_step(few, backend_of(h, few.mesh));
  EXPECT_EQ(plan.pieces[1].program.ops.size(), small.pieces[1].program.ops.size());
  EXPECT_EQ(plan.peak_bytes(), small.peak_bytes());
}

TEST(planner, memory_over_time_stays_within_the_plan_and_reaches_it) {
  const Hardware h = chip();
  for (const char* remat : {"none", "full"}) {
    TrainPlanSpec spec = tiny_step(Mesh({{"fsdp", 2}}));
    spec.remat = parse_remat(remat);
    const Plan plan = plan_train_step(spec, backend_of(h, spec.mesh));
    int64_t kept_for_backward = 0;
    for (const Buffer& buffer : plan.carried) kept_for_backward += buffer.role == BufferRole::kActivation ? buffer.type.bytes() : 0;
    for (const Piece& piece : plan.pieces) {
      const PieceMemory memory = memory_over_time(piece, time_piece(piece, CostModel(h, spec.mesh, {}, {})));
      int64_t scratch = 0, carried = 0, fullest = 0;
      for (const MemorySample& sample : memory.samples) {
        scratch = std::max(scratch, sample.scratch);
        carried = std::max(carried, sample.carried);
      }
      for (const ScopeBytes& scope : memory.fullest) fullest += scope.bytes;
      EXPECT(scratch <= piece.scratch_bytes && 10 * scratch >= 8 * piece.scratch_bytes - 1024);  // but for padding
      EXPECT_EQ(carried, piece.name == "update" ? 0 : kept_for_backward);
      EXPECT(fullest >= scratch);
      if (piece.name == "forward") EXPECT_EQ(memory.samples.back().carried, kept_for_backward);
    }
  }
}

}  // namespace
}  // namespace mw
