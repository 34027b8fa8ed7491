// The ranks that this process belongs to, when mpirun started it.
#pragma once
#include <memory>

#include "comm/mpi.h"

namespace mw {

// Null until join_ranks() was called. MPI starts once per process and stays, so this is the process's, not an argument.
std::shared_ptr<MpiWorld> joined_world();

}  // namespace mw
