// Three steps of torch 2.13's AdamW and SGD on three weights; the figures are torch's.
#include "ops/optimizer_update.h"

#include <cmath>

#include "exec/reference/evaluate.h"
#include "runner.h"

namespace mw::testing {
namespace {

const std::vector<Dim> kDims{{"embed", 3}};
HostArray array(std::vector<double> data) { return {Type{DType::kF32, kDims}, std::move(data)}; }
HostArray scalar(double value) { return {Type{DType::kF32, {}}, {value}}; }
HostArray gradient_of(int step) { return array({0.1 * (step + 1), -0.3, 0.02 * step}); }

// Runs `steps` steps of a Program whose states are outputs of the same names.
HostArray train(const Program& program, std::map<std::string, HostArray> states, std::map<std::string, HostArray> scalars) {
  for (int step = 0; step < 3; ++step) {
    std::map<std::string, HostArray> inputs = scalars;
    inputs.insert(states.begin(), states.end());
    inputs["gradient"] = gradient_of(step);
    if (program.find_input("correction1")) {
      inputs["correction1"] = scalar(1 - std::pow(0.9, step + 1));
      inputs["correction2"] = scalar(1 - std::pow(0.95, step + 1));
    }
    const std::map<std::string, HostArray> results = evaluate_reference(program, inputs);
    for (auto& [name, value] : states) value = results.at(name);
  }
  return states.at("weight");
}

void expect_weights(const HostArray& weight, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(weight.data[i], expected[i], 3e-7);
}

}  // namespace

TEST(ops, adamw_follows_torch) {
  Builder b;
  const Type type{DType::kF32, kDims}, number{DType::kF32, {}};
  const AdamWResult result =
      adamw(b.input("weight", type), b.input("gradient", type), b.input("m", type), b.input("v", type), b.input("lr", number),
            b.input("scale", number), b.input("correction1", number), b.input("correction2", number), 0.9, 0.95, 1e-8, 0.1);
  b.output("weight", result.weight);
  b.output("m", result.first_moment);
  b.output("v", result.second_moment);
  const HostArray weight = train(b.program(), {{"weight", array({0.5, -1.25, 2.0})}, {"m", array({0, 0, 0})}, {"v", array({0, 0, 0})}},
                                 {{"lr", scalar(0.01)}, {"scale", scalar(1)}});
  expect_weights(weight, {0.4695061147212982, -1.2162837982177734, 1.9785404205322266});
}

TEST(ops, sgd_follows_torch) {
  Builder b;
  const Type type{DType::kF32, kDims}, number{DType::kF32, {}};
  const SgdResult result = sgd(b.input("weight", type), b.input("gradient", type), b.input("momentum", type), b.input("lr", number),
                               b.input("scale", number), 0.9, 0.1);
  b.output("weight", result.weight);
  b.output("momentum", result.momentum);
  const HostArray weight = train(b.program(), {{"weight", array({0.5, -1.25, 2.0})}, {"momentum", array({0, 0, 0})}},
                                 {{"lr", scalar(0.1)}, {"scale", scalar(1)}});
  expect_weights(weight, {0.37766847014427185, -1.0136107206344604, 1.880977988243103});
}

}  // namespace mw::testing
