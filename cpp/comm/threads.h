// N ranks as threads of one process. Deterministic: each rank reads everyone's buffer and forms its own result in the order of the group.
//
//   ThreadWorld world(4);
//   world.run([&](Communicator& comm) { ... });   // every rank; the first error of a rank stops the others and is rethrown
#pragma once
#include <compare>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/world.h"

namespace mw {

class ThreadWorld : public World {
 public:
  explicit ThreadWorld(int64_t size);
  ~ThreadWorld() override;
  int64_t size() const override { return static_cast<int64_t>(ranks_.size()); }
  const std::vector<int64_t>& local_ranks() const override { return everyone_; }
  Communicator& rank(int64_t r) override;
  int processors_per_rank() const override;

  // Runs `body` once per rank, each on a thread of its own that lives as long as the world (rank 0 on the caller's).
  void run(const std::function<void(Communicator&)>& body) override;

 private:
  class Rank;
  class Workers;
  // Where the members of one group meet.
  struct Meeting {
    int64_t members = 0;
    int64_t arrived = 0;
    uint64_t generation = 0;
    std::vector<const void*> buffers;
  };

  // The halves of collectives: the n-th that a group has started, until every member has ended it.
  struct Flight {
    int64_t arrived = 0, taken = 0, ended = 0;  // members that have shown their buffer, that have read those of all, that are through
    std::vector<const void*> buffers;
  };
  struct Lane {
    std::deque<Flight> flights;
    uint64_t first = 0;             // number of the one in front
    std::vector<uint64_t> started;  // by member: how many
  };

  struct Address {
    int64_t from, to, tag;
    auto operator<=>(const Address&) const = default;
  };

  Meeting& meeting_of(const Group& group);
  // Blocks until every member has arrived; throws when another rank failed.
  void meet(Meeting& meeting);
  void abort();
  void post(const Address& address, const void* data, int64_t bytes);
  void collect(const Address& address, void* data, int64_t bytes);

  std::mutex mutex_;
  std::condition_variable changed_;
  bool aborted_ = false;
  std::map<std::vector<int64_t>, std::unique_ptr<Meeting>> meetings_;
  std::map<Address, std::deque<std::vector<std::byte>>> letters_;
  std::map<std::vector<int64_t>, Lane> lanes_;  // by the ranks of a group
  std::vector<int64_t> everyone_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::unique_ptr<Workers> workers_;
};

}  // namespace mw
