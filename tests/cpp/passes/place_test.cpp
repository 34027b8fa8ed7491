#include "passes/place.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/executor.h"
#include "ops/ops.h"
#include "passes/placement_checker.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::StepOptions;

Plan plan_on_cpu(const StepOptions& step, const std::string& remat = "none", const Mesh& mesh = Mesh()) {
  PlanOptions options;
  options.mesh = mesh;
  options.remat = parse_remat(remat);
  options.backend.workspace_bytes = [](const Program& program, const Op& op) {
    return cpu::workspace_bytes(program, op, {.isa = chosen_isa(), .threads = 2});
  };
  options.backend.has_kernel = cpu::has_kernel;
  return plan_step(step, options);
}

}  // namespace

TEST(place, no_value_is_overwritten_while_it_lives) {
  for (const char* remat : {"none", "full", "minimal"}) {
    testing::check_placement(plan_on_cpu({}, remat));
    testing::check_placement(plan_on_cpu(
        {.model = {.qk_norm = true, .tied = true, .biases = true}, .batch = 6, .microbatches = 3, .dtype = DType::kBF16}, remat));
    testing::check_placement(plan_on_cpu({}, remat, Mesh({{"fsdp", 2}, {"tensor", 4}})));
  }
}

// The checker itself: a plan whose value is moved over another one is found out.
TEST(place, the_checker_finds_an_overlap) {
  Builder b("pair");
  const Type type{DType::kF32, {{"batch", 64}}};
  const Tensor x = b.input("x", type), u = exp(x), v = log(x);
  b.output("y", reorder(u * v + u, {"batch"}));
  PlanOptions options;
  options.fuse = false;
  Plan plan = plan_single(b.take(), "pair", options);
  testing::check_placement(plan);
  Piece& piece = plan.pieces[0];
  piece.places[static_cast<size_t>(piece.program.ops[1].results[0])] = piece.places[static_cast<size_t>(piece.program.ops[0].results[0])];
  EXPECT_ERROR(testing::Failure, { testing::check_placement(plan); }, "was overwritten by");
}

int64_t gradient_bytes(const std::vector<Buffer>& buffers) {
  int64_t bytes = 0;
  for (const Buffer& buffer : buffers) bytes += buffer.name.starts_with("gradient.") ? buffer.bytes : 0;
  return bytes;
}

// They take the bytes of activations that the backward has read; with a second microbatch they stay beside its activations.
TEST(place, gradients_of_one_microbatch_lie_where_activations_were) {
  for (const char* remat : {"none", "full"}) {
    StepOptions options;
    options.microbatches = 1;
    const Plan one = plan_on_cpu(options, remat);
    options.batch *= 2;
    options.microbatches = 2;
    const Plan two = plan_on_cpu(options, remat);
    const int64_t gradients = gradient_bytes(two.kept);
    EXPECT(gradients > 0);
    EXPECT_EQ(gradient_bytes(two.carried), 0);
    EXPECT_EQ(gradient_bytes(one.kept), 0);
    EXPECT_EQ(gradient_bytes(one.carried), gradients);
    EXPECT(one.carried_bytes < two.carried_bytes + gradients);
    EXPECT(one.peak_bytes() < two.peak_bytes());
  }
}

TEST(place, the_checker_finds_a_gradient_over_what_is_still_read) {
  StepOptions options;
  options.microbatches = 1;
  Plan plan = plan_on_cpu(options);
  testing::check_placement(plan);
  // The backward makes the first gradient long before it reads what the forward left first.
  const auto first =
      std::find_if(plan.carried.begin(), plan.carried.end(), [](const Buffer& b) { return b.role == BufferRole::kActivation; });
  for (Buffer& buffer : plan.carried) {
    if (buffer.name == "gradient.lm_head.weight") buffer.offset = first->offset;
  }
  EXPECT_ERROR(testing::Failure, { testing::check_placement(plan); }, "was overwritten by 'gradient.lm_head.weight'");
}

// What a pass breaks is named together with the pass and the op.
TEST(pipeline, the_verifier_names_the_pass) {
  PlanOptions options;
  std::vector<std::string> passes;
  options.observer = [&](std::string_view pass, const Plan&) { passes.emplace_back(pass); };
  const Plan plan = plan_step(StepOptions{}, options);
  const std::vector<std::string> expected{"cut", "partition", "simplify", "rematerialize", "lower", "fuse", "schedule", "place"};
  EXPECT(passes == expected);
  Program broken = plan.pieces[0].program;
  std::swap(broken.ops.front(), broken.ops.back());
  EXPECT_ERROR(InternalError, { verify(broken, "fuse"); }, "after fuse: ", "is used before it is made");
}

TEST(place, a_dead_value_gives_its_bytes_away) {
  Builder b("chain");
  const Type type{DType::kF32, {{"batch", 64}, {"embed", 64}}};
  Tensor x = b.input("x", type);
  for (int i = 0; i < 6; ++i)
    x = reorder(x, i % 2 ? std::vector<std::string>{"batch", "embed"} : std::vector<std::string>{"embed", "batch"});
  b.output("y", x);
  const Plan plan = plan_single(b.take(), "chain", {});
  testing::check_placement(plan);
  EXPECT_EQ(plan.scratch_bytes, 2 * type.bytes());
}

TEST(place, optimizer_updates_lie_over_their_states) {
  const Plan plan = plan_on_cpu({});
  const Piece& update = plan.pieces.back();
  const auto inputs = inputs_by_name(update.program);
  int64_t copies = 0;
  for (const Op& op : update.program.ops) copies += op.def->name == "reorder";
  EXPECT_EQ(copies, 0);
  for (const ProgramOutput& output : update.program.outputs) {
    if (output.kind != OutputKind::kState) continue;
    const Placement &to = update.places[static_cast<size_t>(output.value)],
                    &from = update.places[static_cast<size_t>(inputs.at(output.name)->value)];
    EXPECT(to.region == from.region && to.buffer == from.buffer && to.offset == from.offset);
  }
}

// Linear in the sequence: no buffer and no workspace holds seq x seq.
TEST(place, memory_grows_linearly_with_the_sequence) {
  const auto peak = [](int64_t seq, const std::string& remat) {
    return static_cast<double>(plan_on_cpu({.model = {}, .batch = 1, .seq = seq}, remat).peak_bytes());
  };
  for (const char* remat : {"none", "full"}) {
    EXPECT(peak(8192, remat) <= 2.2 * peak(4096, remat));
    EXPECT(peak(8192, remat) >= 1.5 * peak(4096, remat));
  }
}

}  // namespace mw
