// What the list of cases cannot say: op functions that build several ops, ties, numbers known from elsewhere, and errors of builders.
#include <array>
#include <map>

#include "base/error.h"
#include "base/philox.h"
#include "exec/reference/evaluate.h"
#include "ops/ops.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw {
namespace {

const Type kRow{DType::kF32, {{"seq", 4}}};

HostArray number(double x) { return {Type{DType::kI32, {}}, {x}}; }

// The one result of an op function applied to x = {3, 5, 5, -1}.
template <typename Body>
HostArray of_row(Body&& body) {
  Builder b;
  b.output("y", body(b.input("x", kRow)));
  return evaluate_reference(b.program(), {{"x", {kRow, {3, 5, 5, -1}}}}).at("y");
}

}  // namespace

TEST(ops, mean_is_the_sum_over_the_count) {
  EXPECT_EQ(of_row([](Tensor x) { return reduce_mean(x, {"seq"}); }).data[0], 3.0);
  Builder b;
  reduce_mean(b.input("x", kRow), {"seq"});
  EXPECT_EQ(b.program().ops[0].def->name, "reduce_sum");  // partial over a sharded dim, unlike a mean
}

TEST(ops, elements_that_attain_the_maximum_share_its_gradient) {
  Builder b;
  const Tensor x = b.input("x", kRow), y = reduce_max(x, {"seq"});
  const Op op = b.program().ops[0];
  GradientContext context{
      .builder = b, .op = op, .operands = {x}, .results = {y}, .upstream = {b.input("g", Type{DType::kF32, {}})}, .needed = {true}};
  context.gradients.resize(1);
  op.def->gradient(context);
  b.output("gradient", *context.gradients[0]);
  const auto results = evaluate_reference(b.program(), {{"x", {kRow, {3, 5, 5, -1}}}, {"g", {Type{DType::kF32, {}}, {8}}}});
  const std::vector<double> expected{0, 4, 4, 0};
  EXPECT(results.at("gradient").data == expected);
}

TEST(ops, argmax_and_top_k_take_the_lowest_index_at_a_tie) {
  EXPECT_EQ(of_row([](Tensor x) { return argmax(x, "seq"); }).data[0], 1.0);
  const std::vector<double> expected{1, 2, 0};
  EXPECT(of_row([](Tensor x) { return top_k(x, "seq", {"top", 3}).second; }).data == expected);
}

TEST(ops, random_numbers_are_those_of_philox) {
  Builder b;
  const Type type{DType::kF32, {{"batch", 2}, {"seq", 5}}};
  const Tensor seed = b.input("seed", Type{DType::kI32, {}}), step = b.input("step", Type{DType::kI32, {}});
  b.output("uniform", random_uniform(type, seed, step, "layers.0.dropout"));
  b.output("normal", random_normal(type, seed, step, "layers.0.dropout"));
  const auto results = evaluate_reference(b.program(), {{"seed", number(-7)}, {"step", number(3)}});
  std::array<float, 10> uniform{}, normal{};
  const RandomStream stream(static_cast<uint64_t>(int64_t{-7}), 3, "layers.0.dropout");
  fill_uniform(stream, 0, uniform);
  fill_normal(stream, 0, 0.0f, 1.0f, normal);
  for (size_t i = 0; i < uniform.size(); ++i) {
    EXPECT_EQ(results.at("uniform").data[i], static_cast<double>(uniform[i]));
    EXPECT_NEAR(results.at("normal").data[i], static_cast<double>(normal[i]), 1e-6);
  }
}

TEST(ops, a_collective_over_one_part_changes_nothing) {
  const auto same = [](HostArray y) { return y.type == kRow && y.data == std::vector<double>{3, 5, 5, -1}; };
  EXPECT(same(of_row([](Tensor x) { return all_gather(x, "seq", {"data:1:1"}, 1); })));
  EXPECT(same(of_row([](Tensor x) { return reduce_scatter(x, "seq", {"data:1:1"}, 1); })));
  EXPECT(same(of_row([](Tensor x) { return all_reduce(x, "max", {"data:1:1"}, 1); })));
  EXPECT(same(of_row([](Tensor x) { return shard_slice(x, "seq", {"data:1:1"}, 1); })));
  EXPECT_EQ(of_row([](Tensor x) { return shard_offset(*x.builder, {"data:1:1"}, 1, 4); }).data[0], 0.0);
}

TEST(ops, nothing_is_appended_where_nothing_changes) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  EXPECT_EQ(cast(x, DType::kF32).id, x.id);
  EXPECT_EQ(reorder(x, {"seq"}).id, x.id);
  EXPECT_EQ(broadcast_to(x, kRow).id, x.id);
  EXPECT_EQ(b.program().ops.size(), size_t{0});
}

TEST(ops, scatter_rows_makes_a_table_of_the_rows_other_dims) {
  Builder b;
  const Tensor x = b.input("x", Type{DType::kBF16, {{"batch", 2}, {"seq", 3}, {"embed", 4}}});
  const Tensor ids = b.input("ids", Type{DType::kI32, {{"batch", 2}, {"seq", 3}}});
  EXPECT_EQ(to_string(scatter_rows(x, ids, Dim{"vocab", 9}, DType::kF32).type()), "f32[vocab=9, embed=4]");
}

TEST(ops, errors_of_op_functions) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  EXPECT_ERROR(
      UserError, { split(x, "seq", {{"heads", 3}, {"head_dim", 2}}); }, "dim 'seq' of f32[seq=4] has 4 elements, its new dims", "have 6");
  EXPECT_ERROR(UserError, { split(x, "sequ", {{"heads", 2}, {"head_dim", 2}}); }, "did you mean 'seq'?");
  EXPECT_ERROR(UserError, { concat({}, "seq"); }, "has no operands");
  EXPECT_ERROR(UserError, { unary("sine", x); }, "there is no elementwise op 'sine' (did you mean 'sin'?)");
  EXPECT_ERROR(UserError, { reduce_mean(x, {"embed"}); }, "there is no dim 'embed' in f32[seq=4]");
}

}  // namespace mw
