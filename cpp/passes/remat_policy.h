// What a rematerialisation policy keeps of the forward for the backward, recomputes, or sends to the host's memory meanwhile.
//
//   none      keep all                                minimal               the results of matrix products
//   full      what enters each layer alone            minimal_with_context  and what attention gives (also called minimal_flash)
//   save_dot_except_mlp, ...                          names of kActivationNames (ir/layer_scope.h), as in the table of remat_policy.cpp
//   minimal_offloaded, qkv_proj_offloaded             the same values, kept in the host's memory
//   custom:query_proj,mlpwi_0=offload,context=device  by name, or by a pattern over scopes ("layers.*.mlp.gate")
//   auto      the first of them, least recompute first, that fits (planner/choose_remat.h)
//
// What enters a layer is always kept, and so are the choices of routers. A name means the value after its reduction over ranks.
#pragma once
#include <string>
#include <vector>

namespace mw {

enum class RematFate : uint8_t { kRecompute, kKeep, kOffload };

struct RematName {
  std::string name;  // of an activation, or a pattern over scopes
  RematFate fate = RematFate::kKeep;
  bool operator==(const RematName&) const = default;
};

struct RematPolicy {
  std::string kind = "none";
  RematFate products = RematFate::kRecompute;  // results of matrix products
  RematFate layer_inputs = RematFate::kKeep;   // kKeep or kOffload
  std::vector<RematName> names;                // the first that matches a value decides
  bool operator==(const RematPolicy&) const = default;
};

// UserError naming the nearest policy, name or fate.
RematPolicy parse_remat(const std::string& text);

std::vector<std::string> remat_policies();  // every word that stands alone, "auto" and aliases included

}  // namespace mw
