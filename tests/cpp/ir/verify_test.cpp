// Each invariant that the verifier keeps, broken by hand.
#include "base/error.h"
#include "ir/program.h"
#include "ops/ops.h"
#include "runner.h"

namespace mw {
namespace {

const Type kRow{DType::kF32, {{"seq", 4}}};

// %0 x, %1 old (state) -> %2 = exp(x) at head, %3 = old + %2, written as the new version.
Program example() {
  Builder b("example");
  const Tensor x = b.input("x", kRow), old = b.state("sum", kRow);
  const Scope scope(b, "head");
  const Tensor y = exp(x, Source("model.py:3"));
  b.output("y", y);
  b.write_state("sum", binary("add", old, y, Source("model.py:4")));
  return b.take();
}

template <typename Break, typename... Parts>
void expect_broken(Break&& break_it, const Parts&... parts) {
  Program program = example();
  verify(program, "trace");
  break_it(program);
  EXPECT_ERROR(InternalError, { verify(program, "fuse"); }, "after fuse: ", parts...);
}

}  // namespace

TEST(ir, verify_names_the_pass_and_the_op) {
  expect_broken([](Program& p) { p.values[2].type = p.values[2].type.with_dtype(DType::kF64); },
                "exp at head (model.py:3): result 0 is f64[seq=4] where its rule makes f32[seq=4]");
}

TEST(ir, verify_finds_a_value_used_before_it_is_made) {
  expect_broken([](Program& p) { p.ops[0].operands[0] = 3; }, "exp at head", "value %3 is used before it is made");
  expect_broken([](Program& p) { p.ops[0].operands[0] = 99; }, "exp at head", "value %99 is used before it is made");
  expect_broken([](Program& p) { p.ops[0].operands[0] = kNoValue; }, "exp at head", "value %-1 is used before it is made");
  expect_broken([](Program& p) { p.outputs[0].value = 99; }, "output 'y': value %99 is used before it is made");
  expect_broken([](Program& p) { std::swap(p.ops[0], p.ops[1]); }, "add at head (model.py:4)", "value %2 is used before it is made");
}

TEST(ir, verify_finds_a_value_made_twice_or_nowhere) {
  expect_broken([](Program& p) { p.ops[1].results[0] = 2; }, "add at head", "value %2 is made twice");
  expect_broken([](Program& p) { p.inputs[1].value = 0; }, "input 'sum': value %0 is made twice");
  expect_broken([](Program& p) { p.ops[1].results[0] = 99; }, "value %99 does not exist");
  expect_broken([](Program& p) { p.inputs[0].value = -5; }, "input 'x': value %-5 does not exist");
}

TEST(ir, verify_checks_producers_and_definitions) {
  expect_broken([](Program& p) { p.values[2].producer = 1; }, "exp at head", "value %2 names another producer");
  expect_broken([](Program& p) { p.ops[0].def = nullptr; }, "op 0: it has no definition");
}

TEST(ir, verify_runs_every_type_rule) {
  expect_broken([](Program& p) { p.ops[1].operands.pop_back(); }, "add at head (model.py:4): it has 1 operands; expected 2");
  expect_broken([](Program& p) { p.ops[0].attributes.set("offsets", std::vector<std::string>{"seq"}); }, "exp at head",
                "it has 1 operands; expected 2");
  expect_broken([](Program& p) { p.values[1].type = Type{DType::kF32, {{"seq", 5}}}; }, "add at head (model.py:4): operands",
                "dim 'seq' has two sizes");
  expect_broken(
      [](Program& p) {
        p.ops[1].results.clear();
        p.outputs.pop_back();
      },
      "it has 0 results where its rule makes 1");
}

TEST(ir, verify_keeps_states_whole) {
  expect_broken([](Program& p) { p.inputs[1].kind = InputKind::kInput; }, "output 'sum': only states and parameters are written");
  expect_broken(
      [](Program& p) {
        p.inputs[1].name = "other";
        p.values[0].type = p.values[2].type = p.values[1].type;
        p.inputs.push_back({"sum", InputKind::kState, p.add_value(Type{DType::kBF16, {{"seq", 4}}}, -1)});
      },
      "output 'sum': the new version is f32[seq=4], the old one bf16[seq=4]");
}

TEST(ir, verify_finds_a_read_after_the_write_in_place) {
  Builder b("late");
  const Tensor old = b.state("sum", kRow);
  b.write_state("sum", old + 1.0);
  b.output("late", unary("exp", old, Source("model.py:9")));
  EXPECT_ERROR(
      InternalError, { verify(b.program(), "schedule"); },
      "after schedule: exp (model.py:9): it reads the old version of a state after the new one was written");
}

}  // namespace mw
