// elementwise_chain: a short program of elementwise ops run over one index space in a single visit of memory. The fuse pass makes it.
//
//   elementwise_chain(%a, %b, %c) {code=["mul 0 1", "constant 0.5", "mul t0 t1", "add t2 2", "cast t3 bf16"], results=[4]}
//
// is  cast(a * b * 0.5 + c, bf16). `code` has one instruction per string, words separated by single spaces:
//   NAME ARGUMENT..      an elementwise op (a row of the table, or select); an argument is N, operand N of the chain, or tN, the result
//                        of instruction N, which stands earlier
//   cast ARGUMENT DTYPE  DTYPE as it prints: f32, bf16, ...
//   constant NUMBER      an f32 scalar
// `results` lists the instructions whose values leave the chain, in the order of the op's results. The types of all values follow from
// the operands by the ops' own type rules.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/builder.h"

namespace mw {

struct ChainArgument {
  bool is_result = false;  // the result of instruction `index`, else operand `index` of the chain
  int index = 0;
  bool operator==(const ChainArgument&) const = default;
};

struct ChainInstruction {
  const OpDef* def = nullptr;
  std::vector<ChainArgument> arguments;
  Attributes attributes;  // as the op itself has them
  bool operator==(const ChainInstruction&) const = default;
};

std::string to_string(const ChainInstruction& instruction);
ChainInstruction parse_instruction(std::string_view text);  // UserError says which word is wrong

// The instructions of a chain op, and the type of each one's value.
std::vector<ChainInstruction> chain_code(const Attributes& attributes);
std::vector<Type> chain_types(std::span<const ChainInstruction> code, const std::vector<const Type*>& operands);

// An op may become one instruction: a row of the table, select, a cast, or a constant without dims. Other ops that are elementwise
// (gated_activation) enter a chain as their decomposition.
bool fits_chain(const OpDef& def, const Attributes& attributes);

std::vector<Tensor> elementwise_chain(Builder& builder, const std::vector<Tensor>& operands, std::span<const ChainInstruction> code,
                                      std::vector<int64_t> results, Source source = Source::here());

}  // namespace mw
