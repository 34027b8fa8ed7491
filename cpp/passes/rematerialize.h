// rematerialize: of the values that the forward leaves for the backward, keeps those that the policy names; the backward makes the
// others again from what is kept, each just before its first use. What is offloaded waits in the host's memory between the two pieces.
//
//   forward:  q = dot(x, w)  ...  outputs q                 forward:  q = dot(x, w)  h = to_host(q)  ...  outputs host.q = h
//   backward: inputs q  ... = f(q, ..)                ->    backward: inputs host.q  q = from_host(host.q)  ... = f(q, ..)
//
// A name that matches nothing is an error. Recompute repeats the collectives it needs.
#pragma once
#include "ir/plan.h"
#include "passes/remat_policy.h"

namespace mw {

Plan rematerialize(Plan plan, const RematPolicy& policy);

}  // namespace mw
