// Program text from a stranger: thousands of mutations of good text either parse, and then print and parse again, or are a
// UserError. What parses is evaluated too, so a type rule that lets through what a reference cannot take is found by the sanitizers.
#include <random>

#include "base/error.h"
#include "exec/reference/evaluate.h"
#include "ops/harness.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

// A Program for each case of the ops' list.
std::vector<std::string> good_texts() {
  std::vector<std::string> texts;
  for (const OpCase& op_case : all_op_cases()) {
    Builder b(op_case.op);
    std::vector<Tensor> operands;
    for (size_t i = 0; i < op_case.operands.size(); ++i)
      operands.push_back(b.input("operand" + std::to_string(i), parse_type(op_case.operands[i].type)));
    const Scope scope(b, "layers.0");
    for (const Tensor& result : b.append(*find_op(op_case.op), operands, op_case.attributes, Source()))
      b.output("result" + std::to_string(result.id), result);
    texts.push_back(b.program().to_text());
  }
  return texts;
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : engine_(seed) {}

  std::string operator()(std::string text, const std::vector<std::string>& others) {
    for (size_t edits = 1 + below(3); edits > 0; --edits) edit(text, others[below(others.size())]);
    return text;
  }
  size_t below(size_t n) { return n == 0 ? 0 : engine_() % n; }

 private:
  void edit(std::string& text, const std::string& other) {
    static const std::vector<std::string> tokens{"%",
                                                 "%0",
                                                 "%1",
                                                 "%99999999",
                                                 "(",
                                                 ")",
                                                 "{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 ",",
                                                 "\"",
                                                 "\\",
                                                 "=",
                                                 ":",
                                                 "@",
                                                 "//",
                                                 "\n",
                                                 "-1",
                                                 "0",
                                                 "2",
                                                 "9223372036854775807",
                                                 "-9223372036854775808",
                                                 "1e308",
                                                 "nan",
                                                 "inf",
                                                 "true",
                                                 "f32[]",
                                                 "u8[seq=3]",
                                                 "bf16[batch=2]",
                                                 "i32[]",
                                                 "seq",
                                                 "embed",
                                                 "dims=[\"seq\"]",
                                                 "281474976710656",
                                                 std::string(1, '\0'),
                                                 "\xff",
                                                 "input %1 \"y\" : f32[seq=4]\n",
                                                 "write \"operand0\" %1\n"};
    const size_t at = below(text.size() + 1), length = below(std::min<size_t>(text.size() - at, 12) + 1);
    switch (below(7)) {
      case 0:
        text.erase(at, length);
        return;
      case 1:
        text.insert(at, tokens[below(tokens.size())]);
        return;
      case 2:
        text.replace(at, length, tokens[below(tokens.size())]);
        return;
      case 3:
        if (!text.empty()) text[below(text.size())] = static_cast<char>(below(256));
        return;
      case 4:
        text.insert(at, text.substr(below(text.size()), below(60)));
        return;
      case 5:
        text.insert(at, other.substr(below(other.size()), below(60)));
        return;
      case 6:
        replace_number(text, at);
        return;
    }
  }
  // The first number after `at` becomes another: sizes, ids and attributes of the right form.
  void replace_number(std::string& text, size_t at) {
    const size_t begin = text.find_first_of("0123456789", at);
    if (begin == std::string::npos) return;
    const size_t end = std::min(text.find_first_not_of("0123456789", begin), text.size());
    text.replace(begin, end - begin, std::to_string(below(7)));
  }

  std::mt19937_64 engine_;
};

void evaluate_quietly(const Program& program) {
  constexpr int64_t kMostElements = 4096;
  std::map<std::string, HostArray> inputs;
  for (const Value& value : program.values) {
    if (value.type.elements() > kMostElements) return;
  }
  for (const ProgramInput& input : program.inputs) {
    const Type& type = program.type(input.value);
    inputs[input.name] = {type, std::vector<double>(static_cast<size_t>(type.elements()), 1.0)};
  }
  try {
    evaluate_reference(program, std::move(inputs));
  } catch (const UserError&) {
  } catch (const std::logic_error&) {  // attributes of a kind that only the reference asks for
  }
}

}  // namespace

TEST(ir, hostile_text_never_crashes) {
  constexpr int kMutations = 20000;
  const std::vector<std::string> texts = good_texts();
  Mutator mutate(7);
  int parsed = 0;
  for (int i = 0; i < kMutations; ++i) {
    const std::string text = mutate(texts[static_cast<size_t>(i) % texts.size()], texts);
    try {
      const Program program = parse_program(text, find_op);
      const std::string printed = program.to_text();
      if (parse_program(printed, find_op).to_text() != printed)
        throw Failure("this prints otherwise after it was printed and parsed:\n" + text);
      evaluate_quietly(program);
      ++parsed;
    } catch (const UserError&) {
    } catch (const Failure&) {
      throw;
    } catch (const std::exception& error) {
      throw Failure(std::string(error.what()) + "\nfrom the text\n" + text);
    }
  }
  EXPECT(parsed > kMutations / 100 && parsed < kMutations / 2);
}

}  // namespace mw::testing
