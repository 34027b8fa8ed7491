// Optimizer updates in one pass over memory, in the arithmetic of torch.optim, and the sum of squares that clipping needs.
//
//   adamw(pool, isa, {.weight = w, .gradient = g, .first_moment = m, .second_moment = v, .copy = w_bf16, .count = n,
//                     .lr = &lr, .gradient_scale = &scale, .correction1 = &c1, .correction2 = &c2,
//                     .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f});
//
// Scalars behind pointers are read when the kernel runs, so a planned step never changes.
#pragma once
#include <cstdint>
#include <span>

#include "base/dtype.h"
#include "base/thread_pool.h"
#include "exec/cpu/isa.h"

namespace mw {

// Loshchilov and Hutter 2017 as torch.optim.AdamW: g *= gradient_scale; w -= lr * weight_decay * w; m += (1 - beta1) (g - m);
// v = beta2 v + (1 - beta2) g^2; w -= (lr / correction1) * m / (sqrt(v) / sqrt(correction2) + eps). correction = 1 - beta^step.
// The results may go elsewhere than to the operands' own arrays.
struct AdamWCall {
  const float* weight;
  const void* gradient;
  DType gradient_dtype = DType::kF32;  // or kBF16
  const float* first_moment;
  const float* second_moment;
  float* new_weight = nullptr;  // null: in place; so the moments
  float* new_first_moment = nullptr;
  float* new_second_moment = nullptr;
  uint16_t* copy = nullptr;  // bf16 of the new weight
  int64_t count;
  const float* lr;
  const float* gradient_scale = nullptr;  // null: 1
  const float* correction1;
  const float* correction2;
  float beta1, beta2, eps, weight_decay;
};
void adamw(ThreadPool& pool, Isa isa, const AdamWCall& call);

// torch.optim.SGD: g *= gradient_scale; g += weight_decay * w; b = momentum * b + g; w -= lr * b. Without a buffer: w -= lr * g.
struct SgdCall {
  const float* weight;
  const void* gradient;
  DType gradient_dtype = DType::kF32;  // or kBF16
  const float* buffer = nullptr;
  float* new_weight = nullptr;  // null: in place
  float* new_buffer = nullptr;
  uint16_t* copy = nullptr;
  int64_t count;
  const float* lr;
  const float* gradient_scale = nullptr;
  float momentum = 0.0f, weight_decay = 0.0f;
};
void sgd(ThreadPool& pool, Isa isa, const SgdCall& call);

// *out = the sum of the squares of all elements of all arrays, added in double in a fixed order.
struct SquaredArray {
  const void* data;
  DType dtype;  // kF32 or kBF16
  int64_t count;
};
int64_t sum_of_squares_workspace_bytes(std::span<const SquaredArray> arrays);
void sum_of_squares(ThreadPool& pool, Isa isa, std::span<const SquaredArray> arrays, void* workspace, float* out);

}  // namespace mw
