#include "ranks.h"

#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings.h"
#include "comm/agreement.h"

namespace mw {
namespace {

std::shared_ptr<MpiWorld>& world_slot() {
  static std::shared_ptr<MpiWorld> world;
  return world;
}

MpiWorld& world() {
  if (!world_slot()) throw UserError("the ranks that mpirun started have not been joined");
  return *world_slot();
}

Communicator& comm() { return world().rank(world().local_ranks()[0]); }

bool any_rank(bool mine) {
  float any = mine ? 1.0f : 0.0f;
  comm().all_reduce(everyone(comm()), DType::kF32, ReduceKind::kMax, &any, &any, 1);
  return any != 0;
}

}  // namespace

std::shared_ptr<MpiWorld> joined_world() { return world_slot(); }

void bind_ranks(py::module_& module) {
  using Unlocked = py::call_guard<py::gil_scoped_release>;
  module.def("mpirun_size", &mpirun_size, "Ranks that mpirun started, this process among them; 0 without mpirun.");
  module.def("mpirun_rank", &mpirun_rank, "The rank of this process among them.");
  module.def(
      "join_ranks",
      [] {
        if (!world_slot()) world_slot() = std::make_shared<MpiWorld>();
      },
      Unlocked(), "Starts MPI and meets the other ranks, once. From then on meshes of more than one rank are made of processes.");
  module.def("ranks_joined", [] { return world_slot() != nullptr; });
  module.def(
      "leave_ranks",
      [] {
        if (!world_slot()) return;
        world_slot()->finish();
        world_slot() = nullptr;
      },
      Unlocked(), "Every rank calls it on its way out.");
  module.def(
      "abort_ranks",
      [](int status) {
        if (world_slot()) world_slot()->abort(status);
      },
      py::arg("status"), Unlocked(), "Ends the processes of all ranks.");
  module.def("mpi_library", [] { return std::make_pair(world().library().path, world().library().version); });
  module.def("processors_per_rank", [] { return world().processors_per_rank(); });
  module.def("ranks_barrier", [] { comm().barrier(); }, Unlocked());
  module.def("any_rank", &any_rank, py::arg("mine"), Unlocked(), "Whether it is true on any rank; all ranks ask together.");
  module.def(
      "gather_texts", [](const std::string& mine) { return gather_texts(comm(), everyone(comm()), mine); }, py::arg("mine"), Unlocked(),
      "Everyone's text, by rank.");
  module.def(
      "check_agreement",
      [](const std::map<std::string, std::string>& facts, const std::string& what) {
        check_agreement(comm(), everyone(comm()), facts, what);
      },
      py::arg("facts"), py::arg("what"), Unlocked(), "UserError that names the keys that differ between ranks.");
}

}  // namespace mw
