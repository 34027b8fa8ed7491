// Normalisation over one dim: that of the weight, or a named one.
#pragma once
#include <optional>
#include <string>

#include "ir/builder.h"

namespace mw {

// y = w * cast(x / sqrt(mean(x^2) + eps)) over the one dim of w (Zhang and Sennrich 2019), x normalised in FP32 and cast to its dtype
// before the product, as transformers' Llama does. offset_one: (1 + w) in FP32 before the cast, as Gemma does.
Tensor rms_norm(Tensor x, Tensor weight, double eps, bool offset_one = false, Source source = Source::here());

// y = cast(x / sqrt(mean(x^2) + eps)) over `dim`: without a weight, as Llama 4 normalises queries and keys.
Tensor rms_norm(Tensor x, std::string dim, double eps, Source source = Source::here());

// y = (x - mean) / sqrt(var + eps) * w + b over the one dim of w (Ba, Kiros and Hinton 2016).
Tensor layer_norm(Tensor x, Tensor weight, std::optional<Tensor> bias, double eps, Source source = Source::here());

}  // namespace mw
