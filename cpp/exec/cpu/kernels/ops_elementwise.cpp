// The elementwise ops, select, cast, constant and elementwise_chain: each becomes a program of the chain interpreter.
#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernel_list.h"
#include "exec/cpu/kernels/elementwise.h"
#include "exec/cpu/kernels/named_loops.h"
#include "ops/elementwise_chain.h"
#include "ops/op_list.h"

namespace mw::cpu {
namespace {

using Op = ElementwiseOp;

struct Mapping {
  std::string_view name;
  Op on_f32, on_i32;  // kCopy as on_i32: there is none, i32 goes through f32
};
constexpr Mapping kMappings[] = {
    {"neg", Op::kNeg, Op::kNegI32},
    {"abs", Op::kAbs, Op::kAbsI32},
    {"floor", Op::kFloor, Op::kCopy},
    {"exp", Op::kExp, Op::kCopy},
    {"log", Op::kLog, Op::kCopy},
    {"sqrt", Op::kSqrt, Op::kCopy},
    {"rsqrt", Op::kRsqrt, Op::kCopy},
    {"tanh", Op::kTanh, Op::kCopy},
    {"sigmoid", Op::kSigmoid, Op::kCopy},
    {"silu", Op::kSilu, Op::kCopy},
    {"gelu_tanh", Op::kGeluTanh, Op::kCopy},
    {"gelu_erf", Op::kGeluErf, Op::kCopy},
    {"relu", Op::kRelu, Op::kCopy},
    {"square", Op::kSquare, Op::kCopy},
    {"reciprocal", Op::kReciprocal, Op::kCopy},
    {"sin", Op::kSin, Op::kCopy},
    {"cos", Op::kCos, Op::kCopy},
    {"erf", Op::kErf, Op::kCopy},
    {"is_finite", Op::kIsFinite, Op::kCopy},
    {"add", Op::kAdd, Op::kAddI32},
    {"sub", Op::kSub, Op::kSubI32},
    {"mul", Op::kMul, Op::kMulI32},
    {"div", Op::kDiv, Op::kCopy},
    {"pow", Op::kPow, Op::kCopy},
    {"max", Op::kMax, Op::kMaxI32},
    {"min", Op::kMin, Op::kMinI32},
    {"eq", Op::kEq, Op::kEqI32},
    {"ne", Op::kNe, Op::kNeI32},
    {"lt", Op::kLt, Op::kLtI32},
    {"le", Op::kLe, Op::kLeI32},
    {"gt", Op::kGt, Op::kGtI32},
    {"ge", Op::kGe, Op::kGeI32},
    {"logical_and", Op::kCopy, Op::kLogicalAnd},
    {"logical_or", Op::kCopy, Op::kLogicalOr},
    {"logical_not", Op::kCopy, Op::kLogicalNot},
};

// Writes the interpreter's program. Registers of inputs and constants keep their values; those of other values are used again after
// the last instruction that reads them.
class ProgramWriter {
 public:
  struct Value {
    int reg = 0;
    bool is_i32 = false;
  };

  Value input(const Type& type) {
    const Value value{fresh(), !is_float(type.dtype)};
    inputs_.push_back({nullptr, type.dtype, static_cast<uint8_t>(value.reg), {}});
    return value;
  }
  Value constant(double number, bool is_i32) {
    const int reg = fresh();
    code_.push_back({.op = is_i32 ? Op::kConstantI32 : Op::kConstant,
                     .result = static_cast<uint8_t>(reg),
                     .constant = static_cast<float>(number),
                     .integer = static_cast<int32_t>(is_i32 ? number : 0)});
    return {reg, is_i32};
  }
  Value emit(Op op, bool gives_i32, std::vector<Value> arguments) {
    arguments.resize(3);
    const int reg = take();
    code_.push_back({.op = op,
                     .result = static_cast<uint8_t>(reg),
                     .a = static_cast<uint8_t>(arguments[0].reg),
                     .b = static_cast<uint8_t>(arguments[1].reg),
                     .c = static_cast<uint8_t>(arguments[2].reg)});
    return {reg, gives_i32};
  }
  void release(Value value) { free_.push_back(value.reg); }

  std::vector<ElementwiseInput>& inputs() { return inputs_; }
  std::vector<ElementwiseInstruction>& code() { return code_; }

 private:
  int fresh() {
    MW_CHECK(next_ < kMaxElementwiseRegisters, "an elementwise chain needs more than ", kMaxElementwiseRegisters, " registers");
    return next_++;
  }
  int take() {
    if (free_.empty()) return fresh();
    const int reg = free_.back();
    free_.pop_back();
    return reg;
  }

  std::vector<ElementwiseInput> inputs_;
  std::vector<ElementwiseInstruction> code_;
  std::vector<int> free_;
  int next_ = 0;
};

using Value = ProgramWriter::Value;

Value as_f32(ProgramWriter& writer, Value x) { return x.is_i32 ? writer.emit(Op::kToF32, false, {x}) : x; }
Value as_bool(ProgramWriter& writer, Value x) { return x.is_i32 ? x : writer.emit(Op::kNe, true, {x, writer.constant(0, false)}); }

Value emit_cast(ProgramWriter& writer, Value x, DType to) {
  if (!is_float(to)) {
    const Value integer = x.is_i32 ? x : writer.emit(Op::kToI32, true, {x});
    return to == DType::kU8 ? writer.emit(Op::kToU8, true, {integer}) : integer;
  }
  const Value wide = as_f32(writer, x);
  if (to == DType::kBF16) return writer.emit(Op::kRoundBf16, false, {wide});
  if (to == DType::kF16) return writer.emit(Op::kRoundF16, false, {wide});
  return x.is_i32 ? wide : writer.emit(Op::kCopy, false, {x});  // a register of its own
}

Value emit_mapped(ProgramWriter& writer, std::string_view name, std::vector<Value> x, DType result) {
  const auto row = std::find_if(std::begin(kMappings), std::end(kMappings), [&](const Mapping& m) { return m.name == name; });
  MW_CHECK(row != std::end(kMappings), "the elementwise interpreter has no '", name, "'");
  if (row->on_f32 == Op::kCopy) {  // logic
    for (Value& argument : x) argument = as_bool(writer, argument);
    return writer.emit(row->on_i32, true, x);
  }
  const bool gives_i32 = !is_float(result);
  if (x[0].is_i32 && row->on_i32 != Op::kCopy) return writer.emit(row->on_i32, true, x);
  const bool comparison = result == DType::kU8 && !x[0].is_i32;
  const bool from_i32 = x[0].is_i32;
  for (Value& argument : x) argument = as_f32(writer, argument);
  const Value y = writer.emit(row->on_f32, comparison || name == "is_finite", x);
  return gives_i32 && from_i32 && name != "is_finite" ? writer.emit(Op::kToI32, true, {y}) : y;
}

Value emit_instruction(ProgramWriter& writer, const ChainInstruction& instruction, const std::vector<Value>& arguments, DType result) {
  const std::string_view name = instruction.def->name;
  if (name == "constant") return writer.constant(instruction.attributes.number("value"), !is_float(result));
  if (name == "cast") return emit_cast(writer, arguments[0], result);
  if (name == "select") return writer.emit(Op::kSelect, arguments[1].is_i32, arguments);
  return emit_mapped(writer, name, arguments, result);
}

struct Program {
  std::vector<int64_t> sizes;
  std::vector<ElementwiseInput> inputs;
  std::vector<ElementwiseInstruction> code;
  std::vector<ElementwiseOutput> outputs;
  std::vector<size_t> operands;  // of each input
};

constexpr size_t kMostArrays = kMaxElementwiseRegisters;

Kernel make_kernel(const Signature& s, const KernelEnvironment& environment, const std::vector<ChainInstruction>& code,
                   const std::vector<int64_t>& results) {
  const std::vector<Dim>& dims = s.result(0).dims;
  Program program;
  for (const Dim& dim : dims) program.sizes.push_back(dim.size);
  ProgramWriter writer;
  std::vector<Value> operands, values;
  for (const Type* type : s.operands) operands.push_back(writer.input(*type));
  const std::vector<Type> types = chain_types(code, s.operands);

  // The last instruction that reads each value; results are read at the end.
  std::vector<size_t> last(code.size(), 0);
  for (size_t i = 0; i < code.size(); ++i) {
    for (const ChainArgument& a : code[i].arguments) {
      if (a.is_result) last[static_cast<size_t>(a.index)] = i;
    }
  }
  for (const int64_t i : results) last[static_cast<size_t>(i)] = code.size();
  for (size_t i = 0; i < code.size(); ++i) {
    std::vector<Value> arguments;
    for (const ChainArgument& a : code[i].arguments) arguments.push_back((a.is_result ? values : operands)[static_cast<size_t>(a.index)]);
    values.push_back(emit_instruction(writer, code[i], arguments, types[i].dtype));
    for (const ChainArgument& a : code[i].arguments) {
      const size_t index = static_cast<size_t>(a.index);
      if (!a.is_result || last[index] != i || code[index].def->name == "constant") continue;
      writer.release(values[index]);
      last[index] = code.size();  // once, though it be read twice
    }
  }
  for (size_t r = 0; r < results.size(); ++r) {
    MW_CHECK(s.result(r).dims == dims, "an elementwise chain gives ", to_string(s.result(r)), " and ", to_string(s.result(0)),
             ": its results have one set of dims");
    program.outputs.push_back({nullptr, s.result(r).dtype, static_cast<uint8_t>(values[static_cast<size_t>(results[r])].reg)});
  }
  const NamedLoops loops = named_loops(dims, s.operands);
  program.inputs = writer.inputs();
  program.code = writer.code();
  for (size_t i = 0; i < program.inputs.size(); ++i)
    program.inputs[i].strides = padded_to<kMaxElementwiseDims>(loops.strides[i], "an elementwise op");
  MW_CHECK(program.inputs.size() <= kMostArrays && program.outputs.size() <= kMostArrays, "an elementwise chain of too many operands");

  return {.run =
              [program = std::move(program), isa = environment.isa](const KernelRun& r) {
                std::array<ElementwiseInput, kMostArrays> inputs;
                std::array<ElementwiseOutput, kMostArrays> outputs;
                for (size_t i = 0; i < program.inputs.size(); ++i) {
                  inputs[i] = program.inputs[i];
                  inputs[i].data = r.operands[i];
                }
                for (size_t i = 0; i < program.outputs.size(); ++i) {
                  outputs[i] = program.outputs[i];
                  outputs[i].data = r.results[i];
                }
                run_elementwise(
                    r.pool, isa,
                    {program.sizes, {inputs.data(), program.inputs.size()}, program.code, {outputs.data(), program.outputs.size()}});
              },
          .choice = "chain of " + std::to_string(code.size())};
}

Kernel make_chain(const Signature& s, const KernelEnvironment& environment) {
  return make_kernel(s, environment, chain_code(*s.attributes), s.attributes->integers("results"));
}

// One op as a chain of itself.
template <size_t index>
Kernel make_single(const Signature& s, const KernelEnvironment& environment) {
  ChainInstruction instruction{.def = &elementwise_ops()[index], .arguments = {}, .attributes = *s.attributes};
  for (size_t i = 0; i < s.operands.size(); ++i) instruction.arguments.push_back({.is_result = false, .index = static_cast<int>(i)});
  return make_kernel(s, environment, {instruction}, {0});
}

template <size_t... indices>
std::array<KernelMaker, sizeof...(indices)> single_makers(std::index_sequence<indices...>) {
  return {make_single<indices>...};
}

}  // namespace

void elementwise_kernels(KernelTable& table) {
  static const auto makers = single_makers(std::make_index_sequence<64>());
  const std::span<const OpDef> ops = elementwise_ops();
  MW_CHECK(ops.size() <= makers.size(), "more elementwise ops than makers");
  for (size_t i = 0; i < ops.size(); ++i) table.emplace(ops[i].name, makers[i]);
  table.emplace("elementwise_chain", make_chain);
}

}  // namespace mw::cpu
