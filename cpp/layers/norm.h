// Normalisation and residual additions under scopes of their own, so that passes and people find them.
#pragma once
#include <string_view>

#include "ops/elementwise.h"
#include "ops/norm.h"

namespace mw {

inline Tensor scaled_rms_norm(std::string_view scope, Tensor x, Tensor weight, double epsilon, Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  return rms_norm(x, weight, epsilon, false, source);
}

inline Tensor residual_add(std::string_view scope, Tensor x, Tensor branch, Source source = Source::here()) {
  const Scope part(*x.builder, scope);
  return binary("add", x, branch, source);
}

}  // namespace mw
