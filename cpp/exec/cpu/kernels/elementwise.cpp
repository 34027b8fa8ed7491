#include "exec/cpu/kernels/elementwise.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernels/elementwise_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTile = 64 * kBlock;  // elements

// The output's dims with neighbours merged wherever every input allows it; at least one dim.
struct LoopNest {
  int rank = 0;
  std::array<int64_t, kMaxElementwiseDims> sizes;
  std::array<std::array<int64_t, kMaxElementwiseDims>, kMaxElementwiseRegisters> strides;  // [input][dim]
};

LoopNest collapse(const ElementwiseCall& call) {
  LoopNest nest;
  for (size_t dim = 0; dim < call.sizes.size(); ++dim) {
    const int64_t size = call.sizes[dim];
    if (size == 1) continue;
    bool merges = nest.rank > 0;
    for (size_t i = 0; merges && i < call.inputs.size(); ++i) {
      merges = nest.strides[i][nest.rank - 1] == call.inputs[i].strides[dim] * size;
    }
    if (!merges) nest.sizes[nest.rank++] = 1;
    nest.sizes[nest.rank - 1] *= size;
    for (size_t i = 0; i < call.inputs.size(); ++i) nest.strides[i][nest.rank - 1] = call.inputs[i].strides[dim];
  }
  if (nest.rank == 0) {
    nest.rank = 1;
    nest.sizes[0] = 1;
    for (size_t i = 0; i < call.inputs.size(); ++i) nest.strides[i][0] = 0;
  }
  return nest;
}

void check(const ElementwiseCall& call, const ElementwiseKernels& kernels) {
  MW_CHECK(call.sizes.size() <= kMaxElementwiseDims, "elementwise over ", call.sizes.size(), " dims");
  MW_CHECK(call.inputs.size() <= kMaxElementwiseRegisters, "elementwise with ", call.inputs.size(), " inputs");
  for (const ElementwiseInput& input : call.inputs) {
    MW_CHECK(input.into < kMaxElementwiseRegisters, "input register ", int{input.into});
    MW_CHECK(kernels.load[static_cast<int>(input.dtype)] != nullptr, "elementwise input of ", dtype_name(input.dtype));
  }
  for (const ElementwiseInstruction& i : call.code) {
    MW_CHECK(std::max({i.result, i.a, i.b, i.c}) < kMaxElementwiseRegisters, "register out of range");
  }
  for (const ElementwiseOutput& output : call.outputs) {
    MW_CHECK(output.from < kMaxElementwiseRegisters, "output register ", int{output.from});
    MW_CHECK(kernels.store[static_cast<int>(output.dtype)] != nullptr, "elementwise output of ", dtype_name(output.dtype));
  }
}

bool is_constant(const ElementwiseInstruction& instruction) {
  return instruction.op == ElementwiseOp::kConstant || instruction.op == ElementwiseOp::kConstantI32;
}
bool is_scalar(const LoopNest& nest, size_t input) {
  return std::all_of(nest.strides[input].begin(), nest.strides[input].begin() + nest.rank, [](int64_t stride) { return stride == 0; });
}

// One worker's registers, and where each register's lanes are at the moment: here or in memory.
class Interpreter {
 public:
  Interpreter(const ElementwiseCall& call, const LoopNest& nest, const ElementwiseKernels& kernels)
      : call_(call), nest_(nest), kernels_(kernels) {
    for (int r = 0; r < kMaxElementwiseRegisters; ++r) lanes_[r] = registers_[r];
    for (const ElementwiseInstruction& instruction : call.code) {
      if (instruction.op == ElementwiseOp::kConstant) kernels.load[0](registers_[instruction.result], &instruction.constant, 0, kBlock);
      if (instruction.op == ElementwiseOp::kConstantI32)
        kernels.load[static_cast<int>(DType::kI32)](registers_[instruction.result], &instruction.integer, 0, kBlock);
    }
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      const ElementwiseInput& input = call.inputs[i];
      if (is_scalar(nest, i)) load_function(input)(registers_[input.into], input.data, 0, kBlock);
    }
  }

  // Elements [first, first + count), count <= kBlock.
  void run_block(int64_t first, int64_t count) {
    for (size_t i = 0; i < call_.inputs.size(); ++i) {
      if (!is_scalar(nest_, i)) read(i, first, count);
    }
    // The last result goes straight to memory: by then all operands have been read up to their own element.
    const bool direct = count % kBlockSlack == 0 && call_.outputs.size() == 1 && !call_.code.empty() &&
                        call_.code.back().result == call_.outputs[0].from && !is_constant(call_.code.back()) &&
                        dtype_bytes(call_.outputs[0].dtype) == 4;
    for (const ElementwiseInstruction& instruction : call_.code) {
      if (is_constant(instruction)) continue;
      void* result = registers_[instruction.result];
      if (direct && &instruction == &call_.code.back()) result = static_cast<char*>(call_.outputs[0].data) + first * 4;
      kernels_.ops[static_cast<int>(instruction.op)](result, lanes_[instruction.a], lanes_[instruction.b], lanes_[instruction.c], count);
    }
    if (direct) return;
    for (const ElementwiseOutput& output : call_.outputs) {
      kernels_.store[static_cast<int>(output.dtype)](static_cast<char*>(output.data) + first * dtype_bytes(output.dtype),
                                                     lanes_[output.from], count);
    }
  }

 private:
  ElementwiseKernels::LoadFunction load_function(const ElementwiseInput& input) const {
    return kernels_.load[static_cast<int>(input.dtype)];
  }

  // Fills the input's register run by run along the innermost dim, or points it to memory.
  void read(size_t i, int64_t first, int64_t count) {
    const ElementwiseInput& input = call_.inputs[i];
    const auto& strides = nest_.strides[i];
    const int64_t element_bytes = dtype_bytes(input.dtype), inner = nest_.sizes[nest_.rank - 1], inner_stride = strides[nest_.rank - 1];
    for (int64_t done = 0; done < count;) {
      int64_t rest = first + done, offset = 0;
      const int64_t column = rest % inner;
      rest /= inner;
      for (int dim = nest_.rank - 2; dim >= 0; --dim) {
        offset += rest % nest_.sizes[dim] * strides[dim];
        rest /= nest_.sizes[dim];
      }
      const char* source = static_cast<const char*>(input.data) + (offset + column * inner_stride) * element_bytes;
      const int64_t run = std::min(count - done, inner - column);
      if (run == count && inner_stride == 1 && element_bytes == 4 && count % kBlockSlack == 0) {
        lanes_[input.into] = source;
        return;
      }
      load_function(input)(registers_[input.into] + done, source, inner_stride, run);
      done += run;
    }
    lanes_[input.into] = registers_[input.into];
  }

  const ElementwiseCall& call_;
  const LoopNest& nest_;
  const ElementwiseKernels& kernels_;
  const void* lanes_[kMaxElementwiseRegisters];
  alignas(64) int32_t registers_[kMaxElementwiseRegisters][kBlock + kBlockSlack];
};

}  // namespace

void run_elementwise(ThreadPool& pool, Isa isa, const ElementwiseCall& call) {
  const ElementwiseKernels& kernels = elementwise_kernels(isa);
  check(call, kernels);
  const LoopNest nest = collapse(call);
  int64_t elements = 1;
  for (int64_t size : call.sizes) elements *= size;
  pool.run((elements + kTile - 1) / kTile, [&](int64_t tile, int) {
    Interpreter interpreter(call, nest, kernels);
    const int64_t end = std::min(elements, (tile + 1) * kTile);
    for (int64_t first = tile * kTile; first < end; first += kBlock) interpreter.run_block(first, std::min(kBlock, end - first));
  });
}

}  // namespace mw
