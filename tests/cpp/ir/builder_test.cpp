#include "ir/builder.h"

#include "base/error.h"
#include "ir/dim_names.h"
#include "ops/ops.h"
#include "runner.h"

namespace mw {
namespace {

const Type kRow{DType::kF32, {{"seq", 4}}};

}  // namespace

TEST(ir, an_undeclared_dim_names_the_nearest) {
  Builder b;
  EXPECT_ERROR(
      UserError, { b.input("x", Type{DType::kF32, {{"emebd", 4}}}); },
      "the dim name 'emebd' in f32[emebd=4] is not declared (did you mean 'embed'?); a name of your own is declared with mw.Dim");
  b.declare_dim("spin");
  EXPECT_EQ(b.input("x", Type{DType::kF32, {{"spin", 4}}}).size("spin"), 4);
  EXPECT_ERROR(UserError, { b.input("y", Type{DType::kF32, {{"spins", 4}}}); }, "did you mean 'spin'?");
  EXPECT(is_standard_dim("kv_heads") && !is_standard_dim("spin"));
}

TEST(ir, a_missing_dim_names_those_there_are) {
  Builder b;
  const Tensor x = b.input("x", Type{DType::kF32, {{"batch", 2}, {"embed", 4}}});
  EXPECT_ERROR(UserError, { x.size("embd"); }, "there is no dim 'embd' in f32[batch=2, embed=4] (did you mean 'embed'?)");
  EXPECT_ERROR(UserError, { b.input("y", Type{DType::kF32, {{"seq", -2}}}); }, "dim 'seq' has the negative size -2");
  EXPECT_ERROR(UserError, { b.input("y", Type{DType::kF32, {{"seq", 2}, {"seq", 2}}}); }, "dim 'seq' stands twice in f32[seq=2, seq=2]");
}

TEST(ir, an_error_of_an_op_names_its_scope_and_line) {
  Builder b;
  const Tensor x = b.input("x", kRow), y = b.input("y", Type{DType::kF32, {{"embed", 4}}});
  const Scope layer(b, "layers.3");
  const Scope mlp(b, "mlp.gate");
  EXPECT_ERROR(UserError, { x + y; }, "add at layers.3.mlp.gate (", "builder_test.cpp:", "neither holds all dims of the other");
  EXPECT_ERROR(UserError, { binary("add", x, y, Source("model.py:12")); }, "add at layers.3.mlp.gate (model.py:12): ");
  b.set_source("script.py:5");
  EXPECT_ERROR(UserError, { binary("add", x, y, Source("model.py:12")); }, "(script.py:5)");
  b.set_source("");
  EXPECT_EQ(b.program().ops.size(), size_t{0});  // a refused op leaves nothing behind
}

TEST(ir, names_are_given_once) {
  Builder b("loss");
  const Tensor x = b.input("x", kRow);
  EXPECT_ERROR(UserError, { b.parameter("x", kRow); }, "'x' is an input of loss already");
  b.output("y", x);
  EXPECT_ERROR(UserError, { b.output("y", x); }, "'y' is an output of loss already");
  b.output("y", x, OutputKind::kCarried);  // another kind is another name
}

TEST(ir, tensors_of_two_builders_do_not_mix) {
  Builder a, b;
  const Tensor x = a.input("x", kRow), y = b.input("y", kRow);
  EXPECT_ERROR(InternalError, { x + y; }, "an operand belongs to another builder");
  EXPECT_ERROR(InternalError, { a.output("y", y); }, "belongs to another builder");
  EXPECT_ERROR(InternalError, { Tensor().type(); }, "an empty Tensor was used");
}

TEST(ir, scopes_nest_and_end) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  {
    const Scope outer(b, "layers.0");
    exp(x);
    const Scope inner(b, "attention");
    exp(x);
  }
  exp(x);
  const auto scope_of = [&](size_t i) { return b.program().scopes[static_cast<size_t>(b.program().ops[i].scope)]; };
  EXPECT_EQ(scope_of(0), "layers.0");
  EXPECT_EQ(scope_of(1), "layers.0.attention");
  EXPECT_EQ(scope_of(2), "");
}

TEST(ir, derived_ops_inherit_scope_and_source) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  b.set_scope("layers.1.norm");
  unary("exp", x, Source("model.py:3"));
  b.set_scope("");
  const Op origin = b.program().ops[0];
  b.set_pass("differentiate");
  b.set_origin(b.program(), origin);
  exp(x);
  EXPECT_EQ(b.program().describe(b.program().ops[1]), "exp at layers.1.norm (model.py:3)");
  EXPECT(b.program().to_text(true).find("// model.py:3 by differentiate") != std::string::npos);
}

TEST(ir, an_observer_sees_each_op) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  std::string seen;
  b.observer = [&](const Program& program, size_t i) { seen += std::string(program.ops[i].def->name) + " "; };
  exp(x) * 2.0;
  EXPECT_EQ(seen, "exp constant mul ");
}

TEST(ir, references_to_types_outlive_the_ops_that_follow) {
  Builder b;
  const Tensor x = b.input("x", kRow);
  const Type& type = x.type();
  for (int i = 0; i < 1000; ++i) exp(x);
  EXPECT_EQ(&type, &x.type());
}

TEST(ir, attributes_of_another_kind_are_broken_invariants) {
  const Attributes attributes{{"k", int64_t{3}}, {"dims", std::vector<std::string>{"seq"}}};
  EXPECT_EQ(attributes.number("k"), 3.0);
  EXPECT_EQ(attributes.integer_or("missing", 5), 5);
  EXPECT_ERROR(InternalError, { attributes.integer("missing"); }, "attribute 'missing' is missing");
  EXPECT_ERROR(InternalError, { attributes.text("k"); }, "attribute 'k' is not a text");
  EXPECT_ERROR(InternalError, { attributes.integers("dims"); }, "attribute 'dims' is not a list of integers");
  Attributes changed = attributes;
  changed.erase("k");
  changed.set("dims", std::vector<int64_t>{1});
  EXPECT_EQ(to_string(changed), "{dims=[1]}");
}

}  // namespace mw
