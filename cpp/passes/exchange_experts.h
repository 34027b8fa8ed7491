// Expert parallelism: rows of experts are sent to the ranks that hold the weights of their experts, worked on there, and sent back before
// they are combined. Whole Programs, after differentiate: the gradients of the rows go the same ways.
//
//   %4 = to_expert_rows(%x, %i)                 %4 = to_expert_rows(%x, %i)
//   %5 = expert_of_rows(%i)                     %5 = expert_of_rows(%i)
//   %6 = grouped_dot(%4, %w, %5)                %7 = expert_counts(%5)        %8 = expert_dispatch(%4, %7)
//   %y = combine(%6, %i)                        %9 = dispatched_experts(%7)   %6 = grouped_dot(%8, %w, %9) {expert_axes=["expert"]}
//                                               %10 = expert_return(%6, %7)   %y = combine(%10, %i)
//
// A rank has room for a planned bound of rows. More is found out by expert_counts at run time; the run is then repeated with a Plan of a
// larger bound, so no token is dropped.
#pragma once
#include "ir/plan.h"
#include "ir/program.h"
#include "mesh/mesh.h"
#include "mesh/rules.h"

namespace mw {

// Of ops that read dispatched rows and have the dim `experts`: the mesh axes over which each rank holds its own experts and their rows.
inline constexpr const char* kExpertAxes = "expert_axes";
// Routers that are balanced stay below; others cost one repeated run.
inline constexpr double kExpertRowsFactor = 1.5;

// The axes are those that the compute rules give to both `experts` and `expert_rows`; without one the Program stays as it is. `planned`
// gets the numbers of the layer with the most rows. UserError when an axis does not divide the experts, or when an op that is neither
// elementwise nor made for them reads rows of experts.
Program exchange_experts(Program program, const Mesh& mesh, const Rules& rules, double factor, ExpertRowsPlanned& planned);

}  // namespace mw
