// Normalisation and residual additions under scopes of their own, so that passes and people find them.
#pragma once
#include <optional>
#include <string_view>

#include "ops/elementwise.h"
#include "ops/norm.h"

namespace mw {

// offset_one: times (1 + weight), as Gemma has it.
inline Tensor scaled_rms_norm(std::string_view scope, Tensor x, Tensor weight, double epsilon, bool offset_one = false,
                              Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  return rms_norm(x, weight, epsilon, offset_one, source);
}

inline Tensor scaled_layer_norm(std::string_view scope, Tensor x, Tensor weight, std::optional<Tensor> bias, double epsilon,
                                Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  return layer_norm(x, weight, bias, epsilon, source);
}

inline Tensor residual_add(std::string_view scope, Tensor x, Tensor branch, Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  return binary("add", x, branch, source);
}

}  // namespace mw
