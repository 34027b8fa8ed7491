// Optimizer updates as fused ops (each decomposes into elementwise ops), and the sum of squares that clipping needs.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

// Sum of the squares of all elements of all operands, f32 scalar. Its shards combine by sum.
Tensor sum_of_squares(std::vector<Tensor> values, Source source = Source::here());

struct AdamWResult {
  Tensor weight, first_moment, second_moment;
  Tensor copy;  // the weight in the dtype asked for, or empty
};
// Loshchilov and Hutter 2017, in torch.optim.AdamW's arithmetic: w -= lr * decay * w; m, v; w -= lr * (m / c1) / (sqrt(v / c2) + eps) with
// c1 = 1 - beta1^step, c2 = 1 - beta2^step. weight, gradient, moments: f32, the same dims. Scalars (f32, no dims, run-time): lr,
// gradient_scale (multiplies the gradient: clipping), correction1 = c1, correction2 = c2. copy: bf16, or none.
AdamWResult adamw(Tensor weight, Tensor gradient, Tensor first_moment, Tensor second_moment, Tensor lr, Tensor gradient_scale,
                  Tensor correction1, Tensor correction2, double beta1, double beta2, double eps, double weight_decay,
                  std::optional<DType> copy = {}, Source source = Source::here());

struct SgdResult {
  Tensor weight, momentum, copy;
};
// torch.optim.SGD: g += decay * w; b = momentum * b + g; w -= lr * b. (b starts at zero, so the first step equals torch's.)
SgdResult sgd(Tensor weight, Tensor gradient, Tensor momentum_buffer, Tensor lr, Tensor gradient_scale, double momentum,
              double weight_decay, std::optional<DType> copy = {}, Source source = Source::here());

}  // namespace mw
