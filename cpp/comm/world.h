// World: the ranks of a mesh, of which this process holds some: all of them as threads, or one beside those of other processes.
//
//   world.run([&](Communicator& comm) { ... });   // once per rank of this process
#pragma once
#include <functional>
#include <vector>

#include "comm/communicator.h"

namespace mw {

class World {
 public:
  virtual ~World() = default;
  virtual int64_t size() const = 0;
  virtual const std::vector<int64_t>& local_ranks() const = 0;  // in ascending order
  virtual Communicator& rank(int64_t r) = 0;                    // of this process
  virtual void run(const std::function<void(Communicator&)>& body) = 0;

  // For each rank: those that the ranks of a host may use, shared out; the same on every rank.
  virtual int processors_per_rank() const = 0;

  bool is_shared() const { return static_cast<int64_t>(local_ranks().size()) < size(); }  // with other processes
};

}  // namespace mw
