// y = act(gate) * up (Shazeer 2020) and its gradient, dense arrays.
//
//   gated_activation(pool, isa, Activation::kSilu, DType::kBF16, gate, up, y, tokens * mlp);
//   gated_activation_backward(pool, isa, Activation::kSilu, DType::kBF16, gate, up, dy, dgate, dup, tokens * mlp);
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

}  // namespace mw
