// cross_entropy as a loss: ignored targets, and which gradient op differentiate emits.
#include "ops/cross_entropy.h"

#include <cmath>

#include "exec/reference/evaluate.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "passes/differentiate.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kTokens = 3, kEmbed = 2, kVocab = 4;
const Dim kTokenDim{"tokens", kTokens}, kEmbedDim{"embed", kEmbed}, kVocabDim{"vocab", kVocab};

std::map<std::string, HostArray> example() {
  return {{"x", {Type{DType::kF32, {kTokenDim, kEmbedDim}}, {0.5, -1, 2, 0.25, -0.75, 1}}},
          {"w", {Type{DType::kF32, {kVocabDim, kEmbedDim}}, {1, 0, -0.5, 2, 0.25, 0.75, -1, -1}}},
          {"targets", {Type{DType::kI32, {kTokenDim}}, {2, -100, 3}}},
          {"weights", {Type{DType::kF32, {kTokenDim}}, {1, 5, 0.5}}}};
}

// sum of weights * nll, or of its square: then the upstream gradient depends on the parameters.
Program traced(bool squared) {
  const std::map<std::string, HostArray> inputs = example();
  Builder b("loss");
  const Tensor x = b.parameter("x", inputs.at("x").type), w = b.parameter("w", inputs.at("w").type);
  Tensor nll = cross_entropy(x, w, b.input("targets", inputs.at("targets").type));
  b.output("nll", nll);
  if (squared) nll = square(nll);
  b.output("loss", reduce_sum(nll * b.input("weights", inputs.at("weights").type), {"tokens"}));
  return b.take();
}

int count(const Program& program, std::string_view op) {
  int n = 0;
  for (const Op& o : program.ops) n += o.def->name == op;
  return n;
}

double loss_at(const Program& program, const std::map<std::string, HostArray>& inputs) {
  return evaluate_reference(program, inputs, {.round_results = false}).at("loss").data[0];
}

void expect_gradients(bool squared) {
  const Program forward = traced(squared), both = differentiate(traced(squared));
  std::map<std::string, HostArray> inputs = example();
  const std::map<std::string, HostArray> results = evaluate_reference(both, inputs, {.round_results = false});
  EXPECT_NEAR(results.at("loss").data[0], loss_at(forward, inputs), 1e-12);
  for (const char* name : {"x", "w"}) {
    const HostArray& gradient = results.at(std::string(kGradientPrefix) + name);
    for (size_t i = 0; i < gradient.data.size(); ++i) {
      double& element = inputs[name].data[i];
      const double center = element;
      element = center + 1e-4;
      const double above = loss_at(forward, inputs);
      element = center - 1e-4;
      const double below = loss_at(forward, inputs);
      element = center;
      EXPECT_NEAR(gradient.data[i], (above - below) / 2e-4, 1e-6);
    }
  }
}

}  // namespace

TEST(ops, cross_entropy_is_zero_where_the_target_is_ignored) {
  const std::map<std::string, HostArray> results = evaluate_reference(traced(false), example());
  const std::vector<double>& nll = results.at("nll").data;
  const double a[4] = {0.5, -2.25, -0.625, 0.5};  // logits of token 0, whose target is 2
  EXPECT_NEAR(nll[0], std::log(std::exp(a[0]) + std::exp(a[1]) + std::exp(a[2]) + std::exp(a[3])) - a[2], 1e-6);
  EXPECT_EQ(nll[1], 0.0);
  EXPECT(nll[2] > 0);
}

TEST(ops, cross_entropy_is_fused_with_its_gradients_where_the_upstream_is_known) {
  const Program program = differentiate(traced(false));
  EXPECT_EQ(count(program, "cross_entropy_with_gradients"), 1);
  EXPECT_EQ(count(program, "cross_entropy") + count(program, "cross_entropy_gradient"), 0);
  EXPECT_EQ(count(program, "gather_rows") + count(program, "scatter_rows"), 0);
  expect_gradients(false);
}

TEST(ops, cross_entropy_keeps_its_own_gradient_op_elsewhere) {
  const Program program = differentiate(traced(true));
  EXPECT_EQ(count(program, "cross_entropy_with_gradients"), 0);
  EXPECT_EQ(count(program, "cross_entropy"), 1);
  EXPECT_EQ(count(program, "cross_entropy_gradient"), 1);
  EXPECT_EQ(count(program, "gather_rows") + count(program, "scatter_rows"), 0);
  expect_gradients(true);
}

}  // namespace mw::testing
