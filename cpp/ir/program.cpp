#include "ir/program.h"

#include <algorithm>

#include "base/error.h"

namespace mw {

ValueId Program::add_value(Type type, int32_t producer) {
  values.push_back({std::move(type), producer});
  return static_cast<ValueId>(values.size() - 1);
}

const ProgramInput* Program::find_input(std::string_view name) const {
  for (const ProgramInput& input : inputs) {
    if (input.name == name) return &input;
  }
  return nullptr;
}

std::unordered_map<std::string_view, const ProgramInput*> inputs_by_name(const Program& program) {
  std::unordered_map<std::string_view, const ProgramInput*> index;
  index.reserve(program.inputs.size());
  for (const ProgramInput& input : program.inputs) index.emplace(input.name, &input);
  return index;
}

const ProgramOutput* Program::find_output(std::string_view name) const {
  for (const ProgramOutput& output : outputs) {
    if (output.name == name) return &output;
  }
  return nullptr;
}

int32_t Program::intern(std::vector<std::string>& table, Index& index, std::string_view text) {
  if (index.size() != table.size()) {  // copied or hand-filled table: index it again
    index.clear();
    for (size_t i = 0; i < table.size(); ++i) index.emplace(table[i], static_cast<int32_t>(i));
  }
  const auto [at, inserted] = index.emplace(std::string(text), static_cast<int32_t>(table.size()));
  if (inserted) table.emplace_back(text);
  return at->second;
}

Signature Program::signature(const Op& op) const {
  Signature signature;
  signature.operands.reserve(op.operands.size());
  signature.results.reserve(op.results.size());
  for (const ValueId id : op.operands) signature.operands.push_back(&type(id));
  for (const ValueId id : op.results) signature.results.push_back(&type(id));
  signature.attributes = &op.attributes;
  return signature;
}

std::string Program::describe(const Op& op) const {
  std::string text(op.def->name);
  const std::string& scope = scopes[static_cast<size_t>(op.scope)];
  const std::string& source = sources[static_cast<size_t>(op.source)];
  if (!scope.empty()) text += " at " + scope;
  if (!source.empty()) text += " (" + source + ")";
  return text;
}

const Type& Signature::operand(size_t i) const {
  if (i >= operands.size()) throw UserError("operand " + std::to_string(i) + " is missing: it has " + std::to_string(operands.size()));
  return *operands[i];
}

uint64_t program_hash(const Program& program) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : program.to_text()) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

std::vector<Type> infer_types(const OpDef& def, const Signature& signature) {
  const size_t found = signature.operands.size(), offsets = signature.attributes->names_or_empty("offsets").size();
  const size_t wanted = static_cast<size_t>(std::max(def.num_operands, 0)) + offsets;
  if (found < wanted || (def.num_operands >= 0 && found > wanted)) {
    throw UserError("it has " + std::to_string(found) + " operands; expected " + (def.num_operands < 0 ? "at least " : "") +
                    std::to_string(wanted));
  }
  for (size_t i = found - offsets; i < found; ++i) {
    if (signature.operand(i) != Type{DType::kI32, {}})
      throw UserError("operand " + std::to_string(i) + ", an offset, is " + to_string(signature.operand(i)) + "; expected i32[]");
  }
  return def.infer(signature);
}

Cost default_cost(const Signature& signature) {
  Cost cost;
  for (const Type* type : signature.operands) cost.bytes += static_cast<double>(type->bytes());
  for (const Type* type : signature.results) {
    cost.bytes += static_cast<double>(type->bytes());
    cost.flops += static_cast<double>(type->elements());
  }
  return cost;
}

void localize_type(Attributes& attributes, const std::function<int64_t(std::string_view dim)>& shards) {
  Type type = parse_type(attributes.text("type"));
  for (Dim& dim : type.dims) dim.size /= shards(dim.name);
  attributes.set("type", to_string(type));
}

}  // namespace mw
