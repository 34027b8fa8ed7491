#include "ops/elementwise_chain.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <functional>

#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/op_list.h"

namespace mw {
namespace {

const OpDef* find_elementwise(std::string_view name) {
  for (const OpDef& def : elementwise_ops()) {
    if (def.name == name) return &def;
  }
  return nullptr;
}

// How many operands an op of the elementwise file has.
size_t num_arguments(const OpDef& def) {
  return def.name == "select" ? 3 : def.name == "constant" ? 0 : def.name == "cast" ? 1 : elementwise_arity(def.name);
}

std::string shortest(double value) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

template <typename Number>
bool read_number(std::string_view word, Number& number) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  return error == std::errc() && end == word.data() + word.size();
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

// ---- the op ----

std::vector<Type> infer(const Signature& signature) {
  const std::vector<ChainInstruction> code = chain_code(*signature.attributes);
  const std::vector<Type> types = chain_types(code, signature.operands);
  std::vector<Type> results;
  for (const int64_t i : signature.attributes->integers("results")) {
    if (i < 0 || i >= static_cast<int64_t>(code.size())) {
      throw UserError("results names instruction " + std::to_string(i) + " of a chain of " + std::to_string(code.size()) +
                      "; expected 0 to " + std::to_string(code.size() - 1));
    }
    results.push_back(types[static_cast<size_t>(i)]);
  }
  return results;
}

Cost cost(const Signature& signature) {
  Cost cost = default_cost(signature);
  cost.flops = 0;
  for (const Type& type : chain_types(chain_code(*signature.attributes), signature.operands))
    cost.flops += static_cast<double>(type.elements());
  return cost;
}

void reference(const ReferenceContext& context) {
  const std::vector<ChainInstruction> code = chain_code(*context.attributes);
  std::vector<const Type*> operand_types;
  for (const HostArray* operand : context.operands) operand_types.push_back(&operand->type);
  const std::vector<Type> types = chain_types(code, operand_types);
  std::vector<HostArray> values(code.size());
  for (size_t i = 0; i < code.size(); ++i) {
    values[i] = {types[i], std::vector<double>(static_cast<size_t>(types[i].elements()))};
    ReferenceContext step{.operands = {}, .results = {&values[i]}, .attributes = &code[i].attributes, .step = context.step};
    for (const ChainArgument& a : code[i].arguments)
      step.operands.push_back(a.is_result ? &values[static_cast<size_t>(a.index)] : context.operands[static_cast<size_t>(a.index)]);
    code[i].def->reference(step);
  }
  const std::vector<int64_t> results = context.attributes->integers("results");
  for (size_t r = 0; r < results.size(); ++r) context.result(r).data = values[static_cast<size_t>(results[r])].data;
}

std::vector<Tensor> decompose(const std::vector<Tensor>& operands, const Attributes& attributes) {
  Builder& builder = *operands.at(0).builder;
  std::vector<Tensor> values, results;
  for (const ChainInstruction& instruction : chain_code(attributes)) {
    std::vector<Tensor> arguments;
    for (const ChainArgument& a : instruction.arguments)
      arguments.push_back((a.is_result ? values : operands)[static_cast<size_t>(a.index)]);
    values.push_back(builder.append1(*instruction.def, arguments, instruction.attributes, Source::here()));
  }
  for (const int64_t i : attributes.integers("results")) results.push_back(values.at(static_cast<size_t>(i)));
  return results;
}

const std::array<OpDef, 1> kDefs{
    OpDef{.name = "elementwise_chain",
          .doc = "Elementwise ops run together over one index space; code: one instruction per string (\"mul 0 1\", \"constant 0.5\", "
                 "\"add t0 2\", \"cast t1 bf16\": N is an operand, tN the result of an instruction), results: the instructions that leave.",
          .infer = infer,
          .cost = cost,
          .reference = reference,
          .decompose = decompose,
          .elementwise = true}};

}  // namespace

std::span<const OpDef> elementwise_chain_ops() { return kDefs; }

std::string to_string(const ChainInstruction& instruction) {
  std::string text(instruction.def->name);
  for (const ChainArgument& a : instruction.arguments) text += (a.is_result ? " t" : " ") + std::to_string(a.index);
  if (instruction.def->name == "constant") text += " " + shortest(instruction.attributes.number("value"));
  if (instruction.def->name == "cast") text += " " + instruction.attributes.text("dtype");
  return text;
}

ChainInstruction parse_instruction(std::string_view text) {
  const auto wrong = [&](const std::string& why) { return UserError("chain instruction '" + std::string(text) + "': " + why); };
  std::vector<std::string_view> words = words_of(text);
  if (words.empty()) throw wrong("expected the name of an elementwise op");
  ChainInstruction instruction{.def = find_elementwise(words[0]), .arguments = {}, .attributes = {}};
  if (!instruction.def) {
    std::vector<std::string> known;
    for (const OpDef& def : elementwise_ops()) known.emplace_back(def.name);
    throw wrong("there is no elementwise op '" + std::string(words[0]) + "'" + did_you_mean(std::string(words[0]), known));
  }
  const bool is_constant = words[0] == "constant", is_cast = words[0] == "cast";
  const size_t count = num_arguments(*instruction.def), expected = 1 + count + (is_constant || is_cast ? 1 : 0);
  if (words.size() != expected) throw wrong("expected " + std::to_string(expected) + " words, found " + std::to_string(words.size()));
  for (size_t i = 1; i <= count; ++i) {
    ChainArgument argument{.is_result = words[i].starts_with('t'), .index = 0};
    if (!read_number(words[i].substr(argument.is_result ? 1 : 0), argument.index) || argument.index < 0) {
      throw wrong("'" + std::string(words[i]) + "' is no argument; expected an operand's number, or t and an instruction's number");
    }
    instruction.arguments.push_back(argument);
  }
  if (is_cast) instruction.attributes.set("dtype", std::string(dtype_name(parse_dtype(words[2]))));
  if (is_constant) {
    double value = 0;
    if (!read_number(words[1], value)) throw wrong("'" + std::string(words[1]) + "' is not a number");
    instruction.attributes = {{"type", to_string(Type{DType::kF32, {}})}, {"value", value}};
  }
  return instruction;
}

std::vector<ChainInstruction> chain_code(const Attributes& attributes) {
  std::vector<ChainInstruction> code;
  for (const std::string& text : attributes.names("code")) code.push_back(parse_instruction(text));
  return code;
}

std::vector<Type> chain_types(std::span<const ChainInstruction> code, const std::vector<const Type*>& operands) {
  std::vector<Type> types;
  types.reserve(code.size());  // signatures point into it
  for (const ChainInstruction& instruction : code) {
    Signature signature{.operands = {}, .results = {}, .attributes = &instruction.attributes};
    for (const ChainArgument& a : instruction.arguments) {
      const size_t index = static_cast<size_t>(a.index), limit = a.is_result ? types.size() : operands.size();
      if (index >= limit)
        throw UserError("chain instruction '" + to_string(instruction) + "' reads " + (a.is_result ? "result " : "operand ") +
                        std::to_string(a.index) + "; there are " + std::to_string(limit) + " before it");
      signature.operands.push_back(a.is_result ? &types[index] : operands[index]);
    }
    types.push_back(instruction.def->infer(signature).at(0));
  }
  return types;
}

bool fits_chain(const OpDef& def, const Attributes& attributes) {
  return find_elementwise(def.name) == &def && (def.name != "constant" || attributes.text("type") == to_string(Type{DType::kF32, {}}));
}

std::vector<Tensor> elementwise_chain(Builder& builder, const std::vector<Tensor>& operands, std::span<const ChainInstruction> code,
                                      std::vector<int64_t> results, Source source) {
  std::vector<std::string> text;
  for (const ChainInstruction& instruction : code) text.push_back(to_string(instruction));
  return builder.append(kDefs[0], operands, {{"code", std::move(text)}, {"results", std::move(results)}}, source);
}

}  // namespace mw
