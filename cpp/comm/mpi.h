// One rank per process over Open MPI. Sums are formed by ourselves in the order of the group, as among threads, so a run has the same bits
// whether its ranks are processes or threads; MPI only moves bytes. All calls are non-blocking underneath: a rank that waits gives its
// processor away after a short while.
//
//   MpiWorld world;                                        // in every process of `mpirun -n 4 ...`, once per process
//   world.run([&](Communicator& comm) { ... });            // this process's rank
//   world.finish();                                        // on the way out, together; `abort` where this rank alone fails
#pragma once
#include <memory>
#include <string>

#include "comm/mpi_rank.h"
#include "comm/world.h"

namespace mw {

class MpiWorld : public World {
 public:
  // Joins the ranks that mpirun started. UserError when they do not all load the same MPI library, or a rank finds itself alone.
  MpiWorld();

  int64_t size() const override { return rank_->size(); }
  const std::vector<int64_t>& local_ranks() const override { return local_; }
  Communicator& rank(int64_t r) override;
  // An error is the caller's: the other ranks wait until they fail too or this one aborts.
  void run(const std::function<void(Communicator&)>& body) override { body(*rank_); }

  int processors_per_rank() const override { return processors_per_rank_; }
  const MpiLibrary& library() const { return mpi_; }

  // Leaves MPI; every rank calls it, and nothing of this world after it.
  void finish();
  // Ends the processes of all ranks.
  void abort(int status);

 private:
  void check_same_library();
  void share_processors();

  const MpiLibrary& mpi_;
  bool started_here_ = false;
  std::unique_ptr<MpiRank> rank_;
  std::vector<int64_t> local_;
  int processors_per_rank_ = 1;
};

}  // namespace mw
