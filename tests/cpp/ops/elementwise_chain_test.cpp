// The text of instructions, and what may become one.
#include "ops/elementwise_chain.h"

#include "ops/elementwise.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {

TEST(ops, chain_instructions_print_and_parse) {
  for (const char* text : {"mul 0 t1", "select 2 t0 1", "cast t3 bf16", "constant 0.1", "constant -1e-30", "neg 0"}) {
    EXPECT_EQ(to_string(parse_instruction(text)), std::string(text));
  }
}

TEST(ops, chain_is_built_from_the_ops_themselves) {
  Builder b;
  const Tensor x = b.input("x", {DType::kF32, {{"embed", 4}}});
  cast(exp(x), DType::kBF16);
  std::vector<ChainInstruction> code;
  for (const Op& op : b.program().ops) {
    EXPECT(fits_chain(*op.def, op.attributes));
    code.push_back({.def = op.def, .arguments = {{.is_result = !code.empty(), .index = 0}}, .attributes = op.attributes});
  }
  const std::vector<Tensor> results = elementwise_chain(b, {x}, code, {1});
  EXPECT_EQ(to_string(results.at(0).type()), "bf16[embed=4]");
  EXPECT(chain_code(b.program().ops.back().attributes) == code);
}

TEST(ops, only_elementwise_ops_without_dims_of_their_own_fit_a_chain) {
  EXPECT(!fits_chain(*find_op("dot"), {}));
  EXPECT(!fits_chain(*find_op("gated_activation"), {{"kind", "silu"}}));
  EXPECT(fits_chain(*find_op("constant"), {{"type", "f32[]"}, {"value", 1.0}}));
  EXPECT(!fits_chain(*find_op("constant"), {{"type", "f32[embed=4]"}, {"value", 1.0}}));
}

}  // namespace mw::testing
