// rematerialize: of the values that the forward leaves for the backward, keeps those that the policy names; the backward makes the
// others again from what is kept, each just before its first use.
//
//   none     keep all                      minimal  keep the results of matrix products
//   full     keep layer inputs only        custom   keep what `names` name
//
// Names are those of the parts of a layer (kActivationNames of ir/layer_scope.h) or patterns over scopes ("layers.*.mlp.gate"); one that
// matches nothing is an error. A name means the value after its reduction over ranks; recompute repeats the collectives it needs.
#pragma once
#include <string>
#include <vector>

#include "ir/plan.h"

namespace mw {

struct RematPolicy {
  std::string kind = "none";
  std::vector<std::string> names;  // for custom: what is kept
  bool operator==(const RematPolicy&) const = default;
};

// "none", "full", "minimal", or "custom:query_proj,context". UserError names the nearest.
RematPolicy parse_remat(const std::string& text);

Plan rematerialize(Plan plan, const RematPolicy& policy);

}  // namespace mw
