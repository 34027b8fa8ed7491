// The vector code of elementwise.h and copy.h, one table per instruction set.
#pragma once
#include <array>
#include <cstdint>

#include "base/dtype.h"
#include "exec/cpu/isa.h"
#include "exec/cpu/kernels/elementwise.h"

namespace mw {

inline constexpr int64_t kBlock = 512;      // elements of a register
inline constexpr int64_t kBlockSlack = 16;  // loads write whole vectors: that many lanes behind the last element

struct ElementwiseKernels {
  // result = op(a, b, c) over ceil(count / lanes) whole vectors.
  using BlockFunction = void (*)(void* result, const void* a, const void* b, const void* c, int64_t count);
  // count elements to 32-bit lanes (f32 or i32) and back; load may write kBlockSlack lanes more.
  using LoadFunction = void (*)(void* lanes, const void* source, int64_t stride, int64_t count);
  using StoreFunction = void (*)(void* destination, const void* lanes, int64_t count);
  std::array<BlockFunction, kNumElementwiseOps> ops;
  std::array<LoadFunction, 7> load;  // by DType; null where it has no lanes
  std::array<StoreFunction, 7> store;
};

namespace avx2 {
extern const ElementwiseKernels kElementwiseKernels;
}
namespace avx512 {
extern const ElementwiseKernels kElementwiseKernels;
}
namespace avx512bf16 {  // its own conversion to bf16
extern const ElementwiseKernels kElementwiseKernels;
}

inline const ElementwiseKernels& elementwise_kernels(Isa isa) {
  return isa == Isa::kAvx2     ? avx2::kElementwiseKernels
         : isa == Isa::kAvx512 ? avx512::kElementwiseKernels
                               : avx512bf16::kElementwiseKernels;
}

}  // namespace mw
