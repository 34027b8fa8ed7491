// Gradients of whole Programs against finite differences of their references.
#include "passes/differentiate.h"

#include "base/error.h"
#include "models/programs.h"
#include "ops/ops.h"
#include "passes/training.h"
#include "runner.h"

namespace mw {
namespace {

using testing::random_array;
using Arrays = std::map<std::string, HostArray>;

const Type kX{DType::kF32, {{"batch", 3}, {"embed", 4}}};
const Type kW{DType::kF32, {{"mlp", 5}, {"embed", 4}}};
const Type kV{DType::kF32, {{"embed", 4}}};

double loss_of(const Program& program, const Arrays& inputs) {
  return evaluate_reference(program, inputs, {.round_results = false}).at("loss").data[0];
}

// Central differences of fourth order at `samples` elements of each parameter.
void check_gradients(const Program& program, Arrays inputs, int64_t samples, double tolerance) {
  Program with_gradients = differentiate(program);
  verify(with_gradients, "differentiate");
  const Arrays results = evaluate_reference(with_gradients, inputs, {.round_results = false});
  for (const ProgramInput& input : program.inputs) {
    if (input.kind != InputKind::kParameter) continue;
    const HostArray& gradient = results.at(kGradientPrefix + input.name);
    double largest = 1e-6;
    for (const double g : gradient.data) largest = std::max(largest, std::abs(g));
    std::vector<double>& x = inputs.at(input.name).data;
    const size_t stride = std::max<size_t>(1, x.size() / static_cast<size_t>(samples));
    for (size_t i = 0; i < x.size(); i += stride) {
      constexpr double step = 1e-3;
      const double center = x[i];
      const auto at = [&](double shift) {
        x[i] = center + shift;
        return loss_of(program, inputs);
      };
      const double expected = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      x[i] = center;
      if (!(std::abs(gradient.data[i] - expected) <= tolerance * largest)) {
        throw testing::Failure(input.name + "[" + std::to_string(i) + "]: " + testing::show(gradient.data[i]) + " and by differences " +
                               testing::show(expected));
      }
    }
  }
}

Program small_program() {
  Builder b("small");
  const Tensor x = b.input("x", kX), w = b.parameter("w", kW), v = b.parameter("v", kV);
  const Tensor unreached = b.parameter("unreached", kV);
  const Tensor h = rms_norm(x * v, v, 1e-5);             // v is used twice
  const Tensor y = dot(unary("tanh", h), w, {"embed"});  // [batch, mlp]
  const Tensor back = dot(y, w, {"mlp"});                // w is used twice
  b.output("loss", reduce_sum(back * h + x, {"batch", "embed"}));
  b.output("other", reduce_sum(unreached, {"embed"}));
  return b.take();
}

}  // namespace

TEST(differentiate, small_program) {
  const Arrays inputs{
      {"x", random_array(kX, 1)}, {"w", random_array(kW, 2)}, {"v", random_array(kV, 3)}, {"unreached", random_array(kV, 4)}};
  check_gradients(small_program(), inputs, 1000, 1e-7);
}

TEST(differentiate, what_the_loss_does_not_reach_has_gradient_zero) {
  const Program program = differentiate(small_program());
  EXPECT_EQ(program.type(program.find_output("gradient.unreached")->value), kV);
  const Arrays results = evaluate_reference(
      program, {{"x", random_array(kX, 1)}, {"w", random_array(kW, 2)}, {"v", random_array(kV, 3)}, {"unreached", random_array(kV, 4)}});
  for (const double g : results.at("gradient.unreached").data) EXPECT_EQ(g, 0.0);
}

TEST(differentiate, only_the_parameters_asked_for) {
  const Program program = differentiate(small_program(), "loss", {"w"});
  EXPECT(program.find_output("gradient.w") != nullptr);
  EXPECT(program.find_output("gradient.v") == nullptr);
}

TEST(differentiate, gradients_keep_the_scope_of_their_op) {
  const Program program = differentiate(trace_loss(testing::tiny_llama(), {.batch = 2, .seq = 4}));
  for (const Op& op : program.ops) {
    if (program.passes[static_cast<size_t>(op.pass)] != "differentiate" || op.operands.empty()) continue;
    EXPECT(!program.scopes[static_cast<size_t>(op.scope)].empty());
    EXPECT(!program.sources[static_cast<size_t>(op.source)].empty());
  }
}

TEST(differentiate, tiny_llama) {
  for (const testing::TinyOptions& options :
       {testing::TinyOptions{}, testing::TinyOptions{.num_layers = 1, .qk_norm = true, .tied = true, .biases = true, .window = 3}}) {
    const testing::StepOptions step{.model = options, .batch = 2, .seq = 6};
    const Program program = trace_loss(testing::tiny_llama(options), {.batch = 2, .seq = 6});
    Arrays inputs, all = testing::initial_states(step);
    for (auto& [name, array] : testing::batch_inputs(step)) all[name] = array;
    for (const ProgramInput& input : program.inputs) inputs[input.name] = all.at(input.name);
    check_gradients(program, inputs, 3, 2e-6);
  }
}

TEST(differentiate, errors_say_what_was_found) {
  EXPECT_ERROR(UserError, { differentiate(small_program(), "los"); }, "there is no result 'los' to differentiate", "did you mean 'loss'");
  EXPECT_ERROR(
      UserError, { differentiate(small_program(), "loss", {"unreachd"}); }, "there is no parameter 'unreachd'", "did you mean 'unreached'");
  Builder vector("vector");
  vector.output("loss", vector.parameter("v", kV));
  EXPECT_ERROR(UserError, { differentiate(vector.take()); }, "only an f32 scalar can be differentiated; 'loss' is f32[embed=4]");
  Builder b("sorted");
  const Tensor v = b.parameter("v", kV);
  {
    const Scope scope(b, "router");
    b.output("loss", reduce_sum(cast(argmax(v, "embed"), DType::kF32) * v, {"embed"}));
  }
  differentiate(b.take());  // nothing flows through integers
  Builder c("state");
  const Tensor w = c.parameter("w", kV);
  const Scope scope(c, "step");
  const Tensor lr = c.input("lr", {DType::kF32, {}});
  c.output("loss", reduce_sum(sgd(w, w, w, lr, lr, 0.9, 0.0, {}, Source("update.py:3")).weight, {"embed"}));
  EXPECT_ERROR(
      UserError, { differentiate(c.take()); }, "sgd at step (update.py:3) has no gradient, but the loss depends on a parameter through it");
}

}  // namespace mw
