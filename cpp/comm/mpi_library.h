// Open MPI, loaded when it is wanted: nothing links to it, and no header of it is needed. Its releases 4 and 5 share the binary
// interface that is declared here.
//
//   const MpiLibrary& mpi = load_mpi();
//   mpi.barrier(mpi.comm_world);
#pragma once
#include <cstddef>
#include <string>

namespace mw {

struct MpiLibrary {
  // Handles are addresses inside the library.
  using Comm = struct MpiCommunicatorHandle*;
  using Group = struct MpiGroupHandle*;
  using Type = struct MpiTypeHandle*;
  using Request = struct MpiRequestHandle*;
  using ErrorHandler = struct MpiErrorHandlerHandle*;
  struct Status {
    int source, tag, error, cancelled;
    size_t count;
  };
  static constexpr int kSuccess = 0, kThreadSerialized = 2, kMaxText = 8192;

  std::string path, version;
  Comm comm_world;
  Type byte;
  ErrorHandler errors_return;

  int (*init_thread)(int*, char***, int wanted, int* provided);
  int (*initialized)(int*);
  int (*finalize)();
  int (*abort)(Comm, int status);
  int (*comm_rank)(Comm, int*);
  int (*comm_size)(Comm, int*);
  int (*comm_dup)(Comm, Comm*);
  int (*comm_group)(Comm, Group*);
  int (*comm_create_group)(Comm, Group, int tag, Comm*);
  int (*comm_set_errhandler)(Comm, ErrorHandler);
  int (*group_incl)(Group, int count, const int* ranks, Group*);
  int (*group_free)(Group*);
  int (*isend)(const void*, int count, Type, int to, int tag, Comm, Request*);
  int (*irecv)(void*, int count, Type, int from, int tag, Comm, Request*);
  int (*iprobe)(int from, int tag, Comm, int* found, Status*);
  int (*get_count)(const Status*, Type, int*);
  int (*testall)(int count, Request*, int* done, Status*);
  int (*ibarrier)(Comm, Request*);
  int (*error_string)(int code, char*, int* length);
  int (*get_library_version)(char*, int* length);
};

// Ranks of the job that mpirun started this process for; 0 when it was not started by (Open MPI's) mpirun.
int mpirun_size();
// The rank of this process in it.
int mpirun_rank();

// Loads the library that belongs to the mpirun that started this process ($MESHWRIGHT_MPI_LIBRARY names another file), once. UserError
// when there is none, or the one found is not Open MPI.
const MpiLibrary& load_mpi();

}  // namespace mw
