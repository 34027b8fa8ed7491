#include "exec/reference/evaluate.h"

#include <limits>

#include "base/error.h"
#include "ops/ops.h"
#include "runner.h"

namespace mw {
namespace {

const Type kRow{DType::kF32, {{"seq", 2}}};

// y = log(x) * x, with the log under a scope.
Program example() {
  Builder b("example");
  const Tensor x = b.input("x", kRow);
  Tensor logs;
  {
    const Scope scope(b, "layers.0.gate");
    logs = log(x, Source("gate.py:5"));
  }
  b.output("y", logs * x);
  return b.take();
}

HostArray row(double a, double b) { return {kRow, {a, b}}; }

}  // namespace

TEST(exec_reference, runs_a_program_and_captures) {
  const Program program = example();
  const ValueId logs = program.ops[0].results[0];
  const auto results = evaluate_reference(program, {{"x", row(1, 2)}}, {.round_results = false}, {logs});
  EXPECT_NEAR(results.at("y").data[1], 2 * std::log(2.0), 1e-15);
  EXPECT_NEAR(results.at("%" + std::to_string(logs)).data[1], std::log(2.0), 1e-15);
}

TEST(exec_reference, rounds_each_result_to_its_dtype) {
  const auto results = evaluate_reference(example(), {{"x", row(1, 2)}});
  EXPECT_EQ(results.at("y").data[1], static_cast<double>(2 * static_cast<float>(std::log(2.0))));
  HostArray bf16{Type{DType::kBF16, {{"seq", 2}}}, {1.00390625, -3.7}};
  round_to_dtype(bf16);
  EXPECT_EQ(bf16.data[0], 1.0);
  HostArray integers{Type{DType::kI32, {{"seq", 2}}}, {1.9, -3.7}};
  round_to_dtype(integers);
  EXPECT_EQ(integers.data[1], -3.0);
}

TEST(exec_reference, check_finite_names_the_first_op) {
  EXPECT_ERROR(
      UserError, { evaluate_reference(example(), {{"x", row(1, 0)}}, {.check_finite = true}); },
      "log at layers.0.gate (gate.py:5) is the first op that makes a NaN or an infinity: 1 of the 2 elements of its result "
      "f32[seq=2], the first at [seq=1]");
  EXPECT_ERROR(
      UserError, { evaluate_reference(example(), {{"x", row(std::nan(""), 1)}}, {.check_finite = true}); },
      "input 'x' of example holds a NaN");
}

TEST(exec_reference, an_infinite_constant_may_be_passed_on) {
  Builder b("masked");
  const Tensor x = b.input("x", kRow);
  const Tensor masked = select(binary("gt", x, constant(b, 0)), x, constant(b, -std::numeric_limits<double>::infinity()));
  b.output("kept", exp(masked));
  b.output("spoiled", masked - masked);
  const auto run = [&](Program program) { return evaluate_reference(program, {{"x", row(1, -1)}}, {.check_finite = true}); };
  EXPECT_ERROR(UserError, { run(b.program()); }, "sub (", "makes a NaN");
  Program program = b.take();
  program.ops.pop_back();
  program.outputs.pop_back();
  EXPECT_EQ(run(program).at("kept").data[1], 0.0);
}

TEST(exec_reference, wrong_inputs_are_named) {
  const Program program = example();
  EXPECT_ERROR(UserError, { evaluate_reference(program, {}); }, "input 'x' of example (f32[seq=2]) is missing");
  EXPECT_ERROR(
      UserError, { evaluate_reference(program, {{"x", row(1, 2)}, {"xs", row(1, 2)}}); }, "example has no input 'xs' (did you mean 'x'?)");
  EXPECT_ERROR(
      UserError, { evaluate_reference(program, {{"x", HostArray{Type{DType::kF32, {{"seq", 3}}}, {1, 2, 3}}}}); },
      "input 'x' of example is f32[seq=3]; expected f32[seq=2]");
}

}  // namespace mw
