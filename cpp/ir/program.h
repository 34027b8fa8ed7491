// A Program: a straight list of ops over values, with its inputs and outputs. Global view: it knows nothing of devices until
// it is partitioned. Values are 32-bit ids; the Program owns everything in plain vectors.
//
//   program loss {
//     parameter %0 "w" : f32[vocab=16, embed=4]
//     input %1 "x" : f32[batch=2, embed=4]
//     %2 = dot(%1, %0) {contract=["embed"]} : f32[batch=2, vocab=16] @ head
//     output "logits" %2
//   }
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/attributes.h"
#include "ir/op_def.h"
#include "ir/type.h"

namespace mw {

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

struct Value {
  Type type;
  int32_t producer = -1;  // index of the op that makes it; -1 for an input
};

struct Op {
  const OpDef* def = nullptr;
  std::vector<ValueId> operands;
  std::vector<ValueId> results;
  Attributes attributes;
  int32_t scope = 0;   // index into Program::scopes: "layers.3.attention"
  int32_t source = 0;  // index into Program::sources: "cpp/layers/attention.cpp:41"
  int32_t pass = 0;    // index into Program::passes: which pass made it ("trace", "differentiate", ...)
};

enum class InputKind : uint8_t {
  kParameter,  // trainable or frozen weights
  kInput,      // batch fields and run-time scalars
  kState,      // read at the start, written at most once: accumulators, optimizer state, caches
  kCarried,    // left by an earlier piece
};

struct ProgramInput {
  std::string name;
  InputKind kind;
  ValueId value;
};

enum class OutputKind : uint8_t {
  kResult,   // handed to the caller
  kState,    // the new version of the state (or parameter) of that name, written in place
  kCarried,  // left for a later piece
};

struct ProgramOutput {
  std::string name;
  OutputKind kind;
  ValueId value;
};

struct Program {
  std::string name = "program";
  std::deque<Value> values;  // a deque: a reference to a Value's type stays good while ops are appended
  std::vector<Op> ops;
  std::vector<ProgramInput> inputs;
  std::vector<ProgramOutput> outputs;
  std::vector<std::string> scopes{""};
  std::vector<std::string> sources{""};
  std::vector<std::string> passes{"trace"};
  std::vector<std::string> own_dims;  // names in use beyond the standard ones (ir/dim_names.h)

  const Type& type(ValueId id) const { return values.at(static_cast<size_t>(id)).type; }
  ValueId add_value(Type type, int32_t producer);
  const ProgramInput* find_input(std::string_view name) const;  // a scan: passes that ask for many use inputs_by_name
  const ProgramOutput* find_output(std::string_view name) const;
  int32_t intern_scope(std::string_view scope) { return intern(scopes, scope_index_, scope); }
  int32_t intern_source(std::string_view source) { return intern(sources, source_index_, source); }
  int32_t intern_pass(std::string_view pass) { return intern(passes, pass_index_, pass); }

  Signature signature(const Op& op) const;
  // "dot at layers.3.mlp.gate (cpp/layers/gated_mlp.cpp:17)": how every error names an op.
  std::string describe(const Op& op) const;

  std::string to_text(bool sources = false) const;

 private:
  using Index = std::unordered_map<std::string, int32_t>;
  static int32_t intern(std::vector<std::string>& table, Index& index, std::string_view text);
  Index scope_index_, source_index_, pass_index_;
};

// An index that holds while the Program's inputs stay as they are.
std::unordered_map<std::string_view, const ProgramInput*> inputs_by_name(const Program& program);

// Reads what to_text wrote. `find_op` gives the OpDef of a name, or null. UserError names the line.
Program parse_program(std::string_view text, const std::function<const OpDef*(std::string_view)>& find_op);

// Checks every invariant: operands made before use, each value made once, types as the type rules say, states written once and
// never read after they were written in place, outputs alive. InternalError names `after` (the pass that ran) and the op.
void verify(const Program& program, std::string_view after);

// A hash of the text (without source lines): equal Programs on all ranks have equal hashes.
uint64_t program_hash(const Program& program);

}  // namespace mw
