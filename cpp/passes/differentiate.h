// differentiate: reverse mode. Appends to a Program the gradient of one scalar result with respect to parameters; gradients are
// ordinary ops with the scope and source line of the op they come from.
//
//   output "loss" %9            ->   output "loss" %9
//                                    output "gradient.model.norm.weight" %41
//
// Where an op offers a fused form with its gradients (cross_entropy), the fused op takes its place and whatever read the original's
// results reads the fused op's.
#pragma once
#include <string>
#include <vector>

#include "ir/program.h"

namespace mw {

inline constexpr const char* kGradientPrefix = "gradient.";

// `parameters`: names to differentiate by; empty means all. UserError when `loss` is no f32 scalar result, a name is unknown, or an
// op on the way has no gradient.
Program differentiate(Program program, const std::string& loss = "loss", std::vector<std::string> parameters = {});

}  // namespace mw
