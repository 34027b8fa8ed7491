#include "exec/cpu/kernels/gated_activation.h"

#include <algorithm>

#include "base/error.h"
#include "exec/cpu/kernels/gated_activation_kernels.h"

namespace mw {
namespace {

constexpr int64_t kTile = 32768;  // elements; a multiple of every vector

const GatedActivationKernels& kernels_of(Isa isa) {
  return isa == Isa::kAvx2     ? avx2::kGatedActivationKernels
         : isa == Isa::kAvx512 ? avx512::kGatedActivationKernels
                               : avx512bf16::kGatedActivationKernels;
}
int is_bf16(DType dtype) {
  MW_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "gated activations take f32 or bf16, not ", dtype_name(dtype));
  return dtype == DType::kBF16;
}

// Calls f(byte offset, elements) for each tile.
template <typename F>
void for_each_tile(ThreadPool& pool, int64_t count, DType dtype, F&& f) {
  pool.run((count + kTile - 1) / kTile,
           [&](int64_t tile, int) { f(tile * kTile * dtype_bytes(dtype), std::min(kTile, count - tile * kTile)); });
}
const char* at(const void* p, int64_t bytes) { return static_cast<const char*>(p) + bytes; }
char* at(void* p, int64_t bytes) { return static_cast<char*>(p) + bytes; }

}  // namespace

void gated_activation(ThreadPool& pool, Isa isa, Activation activation, DType dtype, const void* gate, const void* up, void* y,
                      int64_t count) {
  const auto kernel = kernels_of(isa).forward[static_cast<int>(activation)][is_bf16(dtype)];
  for_each_tile(pool, count, dtype, [&](int64_t skip, int64_t some) { kernel(at(gate, skip), at(up, skip), at(y, skip), some); });
}

void gated_activation_backward(ThreadPool& pool, Isa isa, Activation activation, DType dtype, const void* gate, const void* up,
                               const void* dy, void* dgate, void* dup, int64_t count) {
  const auto kernel = kernels_of(isa).backward[static_cast<int>(activation)][is_bf16(dtype)];
  for_each_tile(pool, count, dtype, [&](int64_t skip, int64_t some) {
    kernel(at(gate, skip), at(up, skip), at(dy, skip), at(dgate, skip), at(dup, skip), some);
  });
}

void clamped_swiglu(ThreadPool& pool, Isa isa, SwigluClamp clamp, DType dtype, const void* gate, const void* up, void* y, int64_t count) {
  const auto kernel = kernels_of(isa).clamped[is_bf16(dtype)];
  for_each_tile(pool, count, dtype, [&](int64_t skip, int64_t some) { kernel(clamp, at(gate, skip), at(up, skip), at(y, skip), some); });
}

void clamped_swiglu_backward(ThreadPool& pool, Isa isa, SwigluClamp clamp, DType dtype, const void* gate, const void* up, const void* dy,
                             void* dgate, void* dup, int64_t count) {
  const auto kernel = kernels_of(isa).clamped_backward[is_bf16(dtype)];
  for_each_tile(pool, count, dtype, [&](int64_t skip, int64_t some) {
    kernel(clamp, at(gate, skip), at(up, skip), at(dy, skip), at(dgate, skip), at(dup, skip), some);
  });
}

}  // namespace mw
