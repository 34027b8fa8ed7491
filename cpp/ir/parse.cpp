// A recursive-descent reader of the text that Program::to_text writes, one line at a time.
#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"
#include "ir/dim_names.h"
#include "ir/program.h"

namespace mw {
namespace {

class LineReader {
 public:
  LineReader(std::string_view line, int number) : line_(line), number_(number) {}

  [[noreturn]] void wrong(const std::string& why) const {
    throw UserError("program text, line " + std::to_string(number_) + ": " + why + " in '" + std::string(line_) + "'");
  }
  void skip_spaces() {
    while (at_ < line_.size() && line_[at_] == ' ') ++at_;
  }
  bool done() {
    skip_spaces();
    return at_ == line_.size() || line_.substr(at_, 2) == "//";
  }
  bool take(std::string_view token) {
    skip_spaces();
    if (line_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) wrong("expected '" + std::string(token) + "' at column " + std::to_string(at_ + 1));
  }
  char peek() {
    skip_spaces();
    return at_ < line_.size() ? line_[at_] : '\0';
  }
  std::string word() {
    skip_spaces();
    const size_t start = at_;
    while (at_ < line_.size() && (std::isalnum(static_cast<unsigned char>(line_[at_])) || line_[at_] == '_')) ++at_;
    if (at_ == start) wrong("expected a name at column " + std::to_string(at_ + 1));
    return std::string(line_.substr(start, at_ - start));
  }
  std::string quoted() {
    expect("\"");
    std::string text;
    while (at_ < line_.size() && line_[at_] != '"') {
      if (line_[at_] == '\\' && at_ + 1 < line_.size()) {
        ++at_;
        text += line_[at_] == 'n' ? '\n' : line_[at_];
        ++at_;
        continue;
      }
      text += line_[at_++];
    }
    if (at_ == line_.size()) wrong("a quoted text does not end");
    ++at_;
    return text;
  }
  std::string up_to(std::string_view stops) {
    skip_spaces();
    const size_t start = at_;
    at_ = std::min(line_.find_first_of(stops, at_), line_.size());
    return std::string(line_.substr(start, at_ - start));
  }
  ValueId id() {
    expect("%");
    const std::string digits = word();
    ValueId value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value < 0) wrong("'%" + digits + "' is not a value");
    return value;
  }
  Type type() {
    std::string text = up_to("]");
    expect("]");
    try {
      return parse_type(text + "]");
    } catch (const UserError& error) {
      wrong(error.what());
    }
  }
  AttributeValue attribute() {
    if (take("true")) return true;
    if (take("false")) return false;
    if (peek() == '"') return quoted();
    if (take("[")) return list();
    return scalar();
  }

 private:
  AttributeValue scalar() {
    const std::string text = up_to(",]} ");
    if (text.find_first_of(".einf") == std::string::npos) {
      int64_t integer = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), integer);
      if (error == std::errc() && end == text.data() + text.size()) return integer;
    }
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) wrong("'" + text + "' is not an attribute value");
    return number;
  }
  AttributeValue list() {
    std::vector<std::string> names;
    std::vector<int64_t> integers;
    while (!take("]")) {
      if (!names.empty() || !integers.empty()) expect(",");
      if (peek() == '"') {
        names.push_back(quoted());
      } else {
        const AttributeValue value = scalar();
        if (!std::holds_alternative<int64_t>(value)) wrong("a list holds names or integers");
        integers.push_back(std::get<int64_t>(value));
      }
    }
    if (!integers.empty() && names.empty()) return integers;
    return names;
  }

  std::string_view line_;
  int number_;
  size_t at_ = 0;
};

class ProgramReader {
 public:
  // No text of `most_values` characters makes as many values.
  ProgramReader(const std::function<const OpDef*(std::string_view)>& find_op, size_t most_values)
      : find_op_(find_op), most_values_(most_values) {}

  void read(LineReader& line) {
    if (line.take("program ")) {
      program_.name = line.word();
      line.expect("{");
    } else if (line.take("}")) {
      closed_ = true;
    } else if (line.take("parameter ")) {
      read_input(line, InputKind::kParameter);
    } else if (line.take("input ")) {
      read_input(line, InputKind::kInput);
    } else if (line.take("state ")) {
      read_input(line, InputKind::kState);
    } else if (line.take("carried ")) {
      read_input(line, InputKind::kCarried);
    } else if (line.take("output ")) {
      read_output(line, OutputKind::kResult);
    } else if (line.take("write ")) {
      read_output(line, OutputKind::kState);
    } else if (line.take("carry ")) {
      read_output(line, OutputKind::kCarried);
    } else {
      read_op(line);
    }
  }

  Program take() {
    if (!closed_) throw UserError("program text ends before its closing brace");
    for (const Value& value : program_.values) {
      if (value.producer == kUndefined) throw UserError("program text: a value number is skipped");
    }
    return std::move(program_);
  }

 private:
  static constexpr int32_t kUndefined = -2;

  void define(LineReader& line, ValueId id, Type type, int32_t producer) {
    if (static_cast<size_t>(id) >= most_values_) line.wrong("the value number %" + std::to_string(id) + " is too large");
    if (static_cast<size_t>(id) >= program_.values.size()) program_.values.resize(static_cast<size_t>(id) + 1, Value{{}, kUndefined});
    Value& value = program_.values[static_cast<size_t>(id)];
    if (value.producer != kUndefined) line.wrong("%" + std::to_string(id) + " is made twice");
    value = {std::move(type), producer};
  }

  ValueId defined(LineReader& line) {
    const ValueId id = line.id();
    if (static_cast<size_t>(id) >= program_.values.size() || program_.values[static_cast<size_t>(id)].producer == kUndefined) {
      line.wrong("%" + std::to_string(id) + " is used before it is made");
    }
    return id;
  }

  void read_input(LineReader& line, InputKind kind) {
    const ValueId id = line.id();
    std::string name = line.quoted();
    line.expect(":");
    define(line, id, line.type(), -1);
    program_.inputs.push_back({std::move(name), kind, id});
  }

  void read_output(LineReader& line, OutputKind kind) {
    std::string name = line.quoted();
    program_.outputs.push_back({std::move(name), kind, defined(line)});
  }

  void read_op(LineReader& line) {
    Op op;
    if (line.peek() == '%') {
      do op.results.push_back(line.id());
      while (line.take(","));
      line.expect("=");
    }
    const std::string name = line.word();
    op.def = find_op_(name);
    if (!op.def) line.wrong("unknown op '" + name + "'");
    line.expect("(");
    while (!line.take(")")) {
      if (!op.operands.empty()) line.expect(",");
      op.operands.push_back(defined(line));
    }
    if (line.take("{")) {
      while (!line.take("}")) {
        if (!op.attributes.entries().empty()) line.expect(",");
        std::string key = line.word();
        line.expect("=");
        op.attributes.set(std::move(key), line.attribute());
      }
    }
    line.expect(":");
    for (size_t i = 0; i < op.results.size(); ++i) {
      if (i > 0) line.expect(",");
      define(line, op.results[i], line.type(), static_cast<int32_t>(program_.ops.size()));
    }
    if (line.take("@")) op.scope = program_.intern_scope(line.up_to(" "));
    if (!line.done()) line.wrong("text is left over");
    program_.ops.push_back(std::move(op));
  }

  const std::function<const OpDef*(std::string_view)>& find_op_;
  size_t most_values_;
  Program program_;
  bool closed_ = false;
};

}  // namespace

Program parse_program(std::string_view text, const std::function<const OpDef*(std::string_view)>& find_op) {
  ProgramReader reader(find_op, text.size());
  int number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    LineReader line(text.substr(0, end), ++number);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.done()) reader.read(line);
  }
  Program program = reader.take();
  for (const Value& value : program.values) {
    for (const Dim& dim : value.type.dims) {
      if (!is_standard_dim(dim.name) && std::find(program.own_dims.begin(), program.own_dims.end(), dim.name) == program.own_dims.end())
        program.own_dims.push_back(dim.name);
    }
  }
  try {
    verify(program, "parse");
  } catch (const std::logic_error& error) {  // what would be a pass's mistake is the text's here
    throw UserError(std::string("program text: ") + error.what());
  }
  return program;
}

}  // namespace mw
