// y = x W (+ bias) under a scope of its own.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "ops/dot.h"
#include "ops/elementwise.h"

namespace mw {

// Contracts the dim `from`; the weight's dims may stand in either order (Hugging Face's Linear has [out, in], GPT-2's Conv1D [in, out]).
inline Tensor linear(std::string_view scope, Tensor x, Tensor weight, const std::optional<Tensor>& bias, const std::string& from,
                     Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  const Tensor y = dot(x, weight, {from}, std::nullopt, source);
  return bias ? binary("add", y, *bias, source) : y;
}

}  // namespace mw
