// y = act(gate) * up (Shazeer 2020) and its gradient, dense arrays.
//
//   gated_activation(pool, isa, Activation::kSilu, DType::kBF16, gate, up, y, tokens * mlp);
//   gated_activation_backward(pool, isa, Activation::kSilu, DType::kBF16, gate, up, dy, dgate, dup, tokens * mlp);
//   clamped_swiglu(pool, isa, {.limit = 7, .alpha = 1.702f}, DType::kBF16, gate, up, y, tokens * mlp);
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

enum class Activation { kSilu, kGeluTanh, kGeluErf, kRelu };

// y may be gate or up. dtype: kF32 or kBF16.
void gated_activation(ThreadPool& pool, Isa isa, Activation activation, DType dtype, const void* gate, const void* up, void* y,
                      int64_t count);
// dgate and dup may be any of the inputs.
void gated_activation_backward(ThreadPool& pool, Isa isa, Activation activation, DType dtype, const void* gate, const void* up,
                               const void* dy, void* dgate, void* dup, int64_t count);

// y = (clamp(up, -limit, limit) + 1) g sigmoid(alpha g) with g = min(gate, limit); the gradient is 0 where gate or up is clamped.
struct SwigluClamp {
  float limit, alpha;
};
void clamped_swiglu(ThreadPool& pool, Isa isa, SwigluClamp clamp, DType dtype, const void* gate, const void* up, void* y, int64_t count);
void clamped_swiglu_backward(ThreadPool& pool, Isa isa, SwigluClamp clamp, DType dtype, const void* gate, const void* up, const void* dy,
                             void* dgate, void* dup, int64_t count);

}  // namespace mw
