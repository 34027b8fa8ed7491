// The communicator of one MPI process; comm/mpi.h makes it. A group of ranks gets an MPI communicator of its own on first use.
#pragma once
#include <cstddef>
#include <list>
#include <map>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/mpi_library.h"

namespace mw {

class MpiRank : public Communicator {
 public:
  // MPI has been started.
  explicit MpiRank(const MpiLibrary& mpi);

  int64_t rank() const override { return everyone_.index; }
  int64_t size() const override { return everyone_.size(); }
  const Group& everyone() const { return everyone_; }
  void barrier() override;
  void all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) override;
  void all_gather(const Group& group, const void* in, void* out, int64_t bytes) override;
  void reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override;
  void all_to_all(const Group& group, const void* in, void* out, int64_t bytes) override;
  void all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) override;
  void shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override;
  void send(int64_t to, int64_t tag, const void* data, int64_t bytes) override;
  void receive(int64_t from, int64_t tag, void* data, int64_t bytes) override;
  std::unique_ptr<Transfer> start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                             int64_t count) override;
  std::unique_ptr<Transfer> start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) override;
  std::unique_ptr<Transfer> start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override;
  std::unique_ptr<Transfer> start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override;
  void progress() override;

  // Waits until all letters are under way.
  void flush();
  // Tells the others that this rank makes no further call: one that waits for it fails instead of waiting for ever.
  void say_goodbye();

 private:
  using Requests = std::vector<MpiLibrary::Request>;
  class Moving;  // comm/mpi_transfer.h
  struct Channel {
    MpiLibrary::Comm comm = nullptr;
    int transfers = 0;  // that were started so far: each has a tag of its own, since pieces of several may be on their way
  };
  struct Letter {
    std::vector<std::byte> data;
    Requests requests;
  };

  Channel& channel_of(const Group& group);
  MpiLibrary::Comm comm_of(const Group& group);
  void check(int status, const char* call) const;
  void start_send(MpiLibrary::Comm comm, int64_t to, int tag, const void* data, int64_t bytes, Requests& requests);
  void start_receive(MpiLibrary::Comm comm, int64_t from, int tag, void* data, int64_t bytes, Requests& requests);
  bool is_done(Requests& requests);
  // Of messages between this rank and `members`.
  void wait(Requests& requests, std::span<const int64_t> members);
  // Between two looks at messages that are not there yet. A member that has ended, or -1.
  int64_t pause(int64_t tries, std::span<const int64_t> members);
  [[noreturn]] void fail_without(int64_t gone) const;
  void exchange(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes);

  const MpiLibrary& mpi_;
  Group everyone_;
  MpiLibrary::Comm letters_comm_ = nullptr;  // their own: no collective takes a letter for its own
  std::map<std::vector<int64_t>, Channel> channels_;
  std::list<Letter> letters_;  // on their way
  std::vector<Moving*> moving_;
  std::vector<std::vector<std::byte>> spare_;  // memory for pieces of sums
};

}  // namespace mw
