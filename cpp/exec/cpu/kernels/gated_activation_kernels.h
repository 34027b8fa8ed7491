// The vector code of gated_activation.h, one table per instruction set.
#pragma once
#include <cstdint>

#include "exec/cpu/kernels/gated_activation.h"

namespace mw {

struct GatedActivationKernels {
  void (*forward[4][2])(const void* gate, const void* up, void* y, int64_t count);  // [Activation][is bf16]
  void (*backward[4][2])(const void* gate, const void* up, const void* dy, void* dgate, void* dup, int64_t count);
  void (*clamped[2])(SwigluClamp clamp, const void* gate, const void* up, void* y, int64_t count);
  void (*clamped_backward[2])(SwigluClamp clamp, const void* gate, const void* up, const void* dy, void* dgate, void* dup, int64_t count);
};

namespace avx2 {
extern const GatedActivationKernels kGatedActivationKernels;
}
namespace avx512 {
extern const GatedActivationKernels kGatedActivationKernels;
}
namespace avx512bf16 {  // its own conversion to bf16
extern const GatedActivationKernels kGatedActivationKernels;
}

}  // namespace mw
