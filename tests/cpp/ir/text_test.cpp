// Programs as text: every kind of attribute, input and output prints and parses back; wrong text is named by line.
#include <limits>

#include "base/error.h"
#include "ir/program.h"
#include "ops/ops.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw {
namespace {

// A definition that takes any attributes and gives one number: what the text of attributes is tried on.
const OpDef kAnything{.name = "anything", .doc = "a number", .infer = [](const Signature&) { return std::vector<Type>{Type{}}; }};
const OpDef* find_anything(std::string_view name) { return name == "anything" ? &kAnything : nullptr; }

Attributes round_trip(const Attributes& attributes) {
  Builder b;
  b.append(kAnything, {}, attributes, Source());
  return parse_program(b.program().to_text(), find_anything).ops.at(0).attributes;
}

Program parse(const std::string& body) { return parse_program("program p {\n" + body + "}\n", find_op); }

const std::string kX = "  input %0 \"x\" : f32[seq=4]\n";

}  // namespace

TEST(ir, every_kind_of_attribute_round_trips) {
  const std::vector<AttributeValue> values{
      true,
      false,
      int64_t{0},
      int64_t{-17},
      std::numeric_limits<int64_t>::min(),
      std::numeric_limits<int64_t>::max(),
      0.0,
      0.1,
      -2.0,
      1e5,
      5e-324,
      1.0 / 3.0,
      -1.7976931348623157e308,
      std::numeric_limits<double>::infinity(),
      -std::numeric_limits<double>::infinity(),
      std::string(),
      std::string("embed"),
      std::string("a \"quoted\" \\ back\\n slash, } ] // and\nanother line"),
      std::vector<int64_t>{3},
      std::vector<int64_t>{-1, 0, 7},
      std::vector<std::string>{"embed"},
      std::vector<std::string>{"a, b]", "", "\"", "true"},
      std::vector<std::string>{},
  };
  Attributes all;
  for (size_t i = 0; i < values.size(); ++i) {
    const Attributes one{{"value", values[i]}};
    if (!(round_trip(one) == one)) testing::fail(__FILE__, __LINE__, to_string(one) + " reads back as " + to_string(round_trip(one)));
    all.set("value" + std::to_string(i), values[i]);
  }
  EXPECT(round_trip(all) == all);
  EXPECT(std::isnan(round_trip({{"value", std::nan("")}}).number("value")));
}

TEST(ir, an_empty_list_reads_as_either_kind) {
  const Attributes empty = round_trip({{"value", std::vector<int64_t>{}}});
  EXPECT(empty.integers("value").empty());
  EXPECT(empty.names("value").empty());
}

TEST(ir, every_kind_of_input_and_output_round_trips) {
  Builder b("everything");
  b.declare_dim("my_dim");
  const Tensor w = b.parameter("model.embed.weight", {DType::kBF16, {{"vocab", 8}, {"embed", 2}}});
  const Tensor x = b.input("a \"strange\"\nname", {DType::kI32, {{"batch", 2}, {"seq", 3}}});
  const Tensor s = b.state("sum", {DType::kF32, {}});
  b.carried("layer_0", {DType::kU8, {{"my_dim", 0}}});
  {
    const Scope layer(b, "layers.0");
    const Scope embedding(b, "embedding");
    const Tensor rows = gather_rows(w, x, "vocab");
    b.output("rows", rows, OutputKind::kCarried);
    b.output("values", top_k(rows, "embed", {"top", 1}).second);
    b.write_state("sum", s + reduce_sum(cast(rows, DType::kF32), {"batch", "seq", "embed"}));
  }
  const std::string text = b.program().to_text();
  const Program parsed = parse_program(text, find_op);
  EXPECT_EQ(parsed.to_text(), text);
  EXPECT_EQ(program_hash(parsed), program_hash(b.program()));
  EXPECT_EQ(parsed.find_input("a \"strange\"\nname")->value, x.id);
  EXPECT(text.find("@ layers.0.embedding\n") != std::string::npos);
  EXPECT_EQ(parse_program(b.program().to_text(true), find_op).to_text(), text);  // source lines are comments
}

TEST(ir, text_of_a_program) {
  Builder b("loss");
  const Tensor w = b.parameter("w", {DType::kF32, {{"vocab", 16}, {"embed", 4}}});
  const Tensor x = b.input("x", {DType::kF32, {{"batch", 2}, {"embed", 4}}});
  {
    const Scope scope(b, "head");
    b.output("logits", dot(x, w, {"embed"}));
  }
  EXPECT_EQ(b.program().to_text(),
            "program loss {\n"
            "  parameter %0 \"w\" : f32[vocab=16, embed=4]\n"
            "  input %1 \"x\" : f32[batch=2, embed=4]\n"
            "  %2 = dot(%1, %0) {contract=[\"embed\"]} : f32[batch=2, vocab=16] @ head\n"
            "  output \"logits\" %2\n"
            "}\n");
}

TEST(ir, types_round_trip) {
  for (const std::string text :
       {"f32[]", "bf16[batch=8, seq=256, embed=768]", "f16[seq=0]", "f64[a=1]", "i32[b=2]", "u8[c=3]", "i8[d=4]"}) {
    EXPECT_EQ(to_string(parse_type(text)), text);
  }
}

TEST(ir, wrong_types_say_what_is_wrong) {
  EXPECT_ERROR(UserError, { parse_type("f32"); }, "'f32' is not a type: brackets are missing; expected for example f32[batch=8, embed=64]");
  EXPECT_ERROR(UserError, { parse_type(""); }, "brackets are missing");
  EXPECT_ERROR(UserError, { parse_type("f33[seq=1]"); }, "unknown dtype 'f33'");
  EXPECT_ERROR(UserError, { parse_type("f32[seq]"); }, "a dim is name=size");
  EXPECT_ERROR(UserError, { parse_type("f32[=4]"); }, "'' is not a dim name");
  EXPECT_ERROR(UserError, { parse_type("f32[a-b=4]"); }, "'a-b' is not a dim name");
  EXPECT_ERROR(UserError, { parse_type("f32[seq=4x]"); }, "'4x' is not a size");
  EXPECT_ERROR(UserError, { parse_type("f32[seq=99999999999999999999]"); }, "is not a size");
  EXPECT_ERROR(UserError, { parse_type("f32[seq=-1]"); }, "dim 'seq' has the negative size -1");
  EXPECT_ERROR(UserError, { parse_type("f32[seq=1, seq=2]"); }, "dim 'seq' stands twice");
  EXPECT_ERROR(UserError, { parse_type("f32[seq=9223372036854775807, embed=9223372036854775807]"); }, "has more than 2^48 elements");
  EXPECT_ERROR(UserError, { parse_type("f32[batch=0, seq=9223372036854775807]"); }, "has more than 2^48 elements");
  std::string many = "f32[";
  for (int i = 0; i < 33; ++i) many += (i > 0 ? ", d" : "d") + std::to_string(i) + "=1";
  EXPECT_ERROR(UserError, { parse_type(many + "]"); }, "a type of 33 dims; expected at most 32");
}

TEST(ir, wrong_program_text_is_named_by_line) {
  EXPECT_ERROR(
      UserError, { parse(kX + "  %1 = exq(%0) : f32[seq=4]\n"); },
      "program text, line 3: unknown op 'exq' in '  %1 = exq(%0) : f32[seq=4]'");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp(%5) : f32[seq=4]\n"); }, "line 3: %5 is used before it is made");
  EXPECT_ERROR(UserError, { parse(kX + "  %0 = exp(%0) : f32[seq=4]\n"); }, "line 3: %0 is made twice");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp(%0 : f32[seq=4]\n"); }, "expected ',' at column");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp(%0)\n"); }, "expected ':' at column");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp(%0) : f32[seq=x]\n"); }, "line 3: 'f32[seq=x]' is not a type: 'x' is not a size");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp(%0) : f32[seq=4] more\n"); }, "text is left over");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = reduce_sum(%0) {dims=[\"seq, 1]} : f32[]\n"); }, "a quoted text does not end");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = reduce_sum(%0) {dims=[1.5]} : f32[]\n"); }, "a list holds names or integers");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = reduce_sum(%0) {dims=4x} : f32[]\n"); }, "'4x' is not an attribute value");
  EXPECT_ERROR(UserError, { parse("  input %a \"x\" : f32[]\n"); }, "'%a' is not a value");
  EXPECT_ERROR(UserError, { parse("  input %40000000 \"x\" : f32[]\n"); }, "the value number %40000000 is too large");
  EXPECT_ERROR(UserError, { parse("  input %1 \"x\" : f32[]\n"); }, "a value number is skipped");
  EXPECT_ERROR(UserError, { parse_program("program p {\n", find_op); }, "program text ends before its closing brace");
}

TEST(ir, program_text_that_breaks_a_rule_is_a_user_error) {
  EXPECT_ERROR(
      UserError, { parse(kX + "  %1 = exp(%0) : f32[seq=5]\n"); },
      "program text: after parse: exp: result 0 is f32[seq=5] where its rule makes f32[seq=4]");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = exp() : f32[seq=4]\n"); }, "exp: it has 0 operands; expected 1");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = reduce_sum(%0) : f32[]\n"); }, "attribute 'dims' is missing");
  EXPECT_ERROR(UserError, { parse(kX + "  %1 = reduce_sum(%0) {dims=3} : f32[]\n"); }, "attribute 'dims' is not a list of names");
}

}  // namespace mw
