// Chains of elementwise ops, run in one pass over memory: a small program over registers, evaluated in blocks that stay in L1.
//
//   // y[t, e] = silu(g[t, e]) * s[t], s f32, g and y bf16
//   const int64_t sizes[] = {tokens, embed};
//   const ElementwiseInput inputs[] = {{g, DType::kBF16, 0, {embed, 1}}, {s, DType::kF32, 1, {1, 0}}};
//   const ElementwiseInstruction code[] = {{ElementwiseOp::kSilu, 2, 0}, {ElementwiseOp::kMul, 2, 2, 1}};
//   const ElementwiseOutput outputs[] = {{y, DType::kBF16, 2}};
//   run_elementwise(pool, isa, {sizes, inputs, code, outputs});
//
// A register holds f32 lanes (from f32, bf16, f16) or i32 lanes (from i32, u8); an op expects the kind that its comment says, and a
// result may replace an operand. Outputs are dense in the order of `sizes`; an input has a stride, in elements, for each of them (0: the
// same all along that dim). An output may be the very array of an input that is read at the same places. Nothing is allocated.
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

enum class ElementwiseOp : uint8_t {
  // f32 -> f32
  kCopy,
  kNeg,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kTanh,
  kSigmoid,
  kSilu,
  kGeluTanh,
  kGeluErf,
  kRelu,
  kSquare,
  kAbs,
  kFloor,
  kReciprocal,
  kSin,
  kCos,
  kErf,
  kRoundBf16,
  kRoundF16,  // to the nearest bf16 or f16, kept as f32
  // f32, f32 -> f32; kMax and kMin give NaN where an operand is NaN
  kAdd,
  kSub,
  kMul,
  kDiv,
  kMax,
  kMin,
  kPow,
  // f32, f32 -> i32 (0 or 1)
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  // i32 -> i32
  kLogicalNot,
  kNegI32,
  kAbsI32,
  kToU8,  // kToU8 keeps the low 8 bits
  // i32, i32 -> i32
  kLogicalAnd,
  kLogicalOr,
  kAddI32,
  kSubI32,
  kMulI32,
  kMaxI32,
  kMinI32,
  kEqI32,
  kNeI32,
  kLtI32,
  kLeI32,
  kGtI32,
  kGeI32,
  kIsFinite,     // f32 -> i32 (0 or 1)
  kToF32,        // i32 -> f32
  kToI32,        // f32 -> i32, towards zero
  kSelect,       // a: i32, non-zero takes b, else c: both f32 or both i32
  kConstant,     // the register takes `constant`; written once in a program
  kConstantI32,  // the register takes `integer`; written once in a program
};
inline constexpr int kNumElementwiseOps = static_cast<int>(ElementwiseOp::kConstantI32) + 1;

inline constexpr int kMaxElementwiseDims = 8;
inline constexpr int kMaxElementwiseRegisters = 32;

struct ElementwiseInstruction {
  ElementwiseOp op;
  uint8_t result;
  uint8_t a = 0, b = 0, c = 0;
  float constant = 0.0f;
  int32_t integer = 0;
};

struct ElementwiseInput {
  const void* data;
  DType dtype;   // kF32, kBF16, kF16, kI32, kU8
  uint8_t into;  // register; no instruction may write it
  std::array<int64_t, kMaxElementwiseDims> strides;
};

struct ElementwiseOutput {
  void* data;
  DType dtype;  // kF32, kBF16, kF16 of an f32 register; kI32, kU8 of an i32 register
  uint8_t from;
};

struct ElementwiseCall {
  std::span<const int64_t> sizes;  // at most 8 dims
  std::span<const ElementwiseInput> inputs;
  std::span<const ElementwiseInstruction> code;
  std::span<const ElementwiseOutput> outputs;
};

// InternalError for a register, dim or dtype out of range.
void run_elementwise(ThreadPool& pool, Isa isa, const ElementwiseCall& call);

}  // namespace mw
