#include "ir/program.h"

namespace mw {
namespace {

const char* input_word(InputKind kind) {
  switch (kind) {
    case InputKind::kParameter:
      return "parameter";
    case InputKind::kInput:
      return "input";
    case InputKind::kState:
      return "state";
    case InputKind::kCarried:
      return "carried";
  }
  return "?";
}

const char* output_word(OutputKind kind) {
  switch (kind) {
    case OutputKind::kResult:
      return "output";
    case OutputKind::kState:
      return "write";
    case OutputKind::kCarried:
      return "carry";
  }
  return "?";
}

void append_ids(std::string& text, const std::vector<ValueId>& ids) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) text += ", ";
    text += '%';
    text += std::to_string(ids[i]);
  }
}

}  // namespace

std::string Program::to_text(bool with_sources) const {
  std::string text = "program " + name + " {\n";
  for (const ProgramInput& input : inputs) {
    text += std::string("  ") + input_word(input.kind) + " %" + std::to_string(input.value) + " " + to_string(AttributeValue(input.name)) +
            " : " + to_string(type(input.value)) + "\n";
  }
  for (const Op& op : ops) {
    text += "  ";
    append_ids(text, op.results);
    if (!op.results.empty()) text += " = ";
    text += op.def->name;
    text += '(';
    append_ids(text, op.operands);
    text += ')';
    if (!op.attributes.entries().empty()) text += " " + to_string(op.attributes);
    text += " : ";
    for (size_t i = 0; i < op.results.size(); ++i) text += (i > 0 ? ", " : "") + to_string(type(op.results[i]));
    if (op.scope != 0) text += " @ " + scopes[static_cast<size_t>(op.scope)];
    if (with_sources && (op.source != 0 || op.pass != 0)) {
      text += " // " + sources[static_cast<size_t>(op.source)] + " by " + passes[static_cast<size_t>(op.pass)];
    }
    text += '\n';
  }
  for (const ProgramOutput& output : outputs) {
    text += std::string("  ") + output_word(output.kind) + " " + to_string(AttributeValue(output.name)) + " %" +
            std::to_string(output.value) + "\n";
  }
  return text + "}\n";
}

}  // namespace mw
