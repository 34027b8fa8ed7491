// Small random Programs of elementwise ops, dots, reductions and norms over named dims, and random rules: property tests of the passes.
#pragma once
#include <map>
#include <random>
#include <string>

#include "ir/program.h"
#include "mesh/rules.h"

namespace mw::testing {

// Inputs "x0", "x1", .. and parameters "w0", ..; results "y0", .. and the scalar "loss", which depends on all of them.
Program random_program(std::mt19937_64& random);
std::map<std::string, HostArray> random_inputs(const Program& program, uint64_t seed);

// Axes of 1, 2 or 4 with at most 8 ranks, and four tables of random rows.
Mesh random_mesh(std::mt19937_64& random);
Rules random_rules(std::mt19937_64& random);

}  // namespace mw::testing
