// The vector code of rope.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/rope.h"

namespace mw {

struct RopeKernels {
  void (*table_row)(int32_t position, const float* inv_freq, int64_t pairs, float factor, float* cosines, float* sines);
  void (*rows[2])(const RopeCall& call, int64_t begin, int64_t end);  // [x is bf16]
};

namespace avx2 {
extern const RopeKernels kRopeKernels;
}
namespace avx512 {
extern const RopeKernels kRopeKernels;
}
namespace avx512bf16 {  // its own conversion to bf16
extern const RopeKernels kRopeKernels;
}

}  // namespace mw
