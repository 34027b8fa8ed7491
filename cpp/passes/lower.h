// lower: an op for which the backend has no kernel is replaced by its decomposition.
//
//   %y = layer_norm(%x, %w)   ->   reduce_mean, sub, square, ...      (no kernel for layer_norm)
#pragma once
#include "ir/plan.h"
#include "passes/place.h"

namespace mw {

// InternalError for an op that has neither kernel nor decomposition. Keeps everything when backend.has_kernel is null.
Plan lower(Plan plan, const BackendFacts& backend);

}  // namespace mw
