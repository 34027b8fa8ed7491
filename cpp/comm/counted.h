// A communicator that adds up what its rank sends; the calls go to another one. Counted as around a ring, which is what plans predict.
#pragma once
#include "comm/communicator.h"

namespace mw {

class CountedCommunicator : public Communicator {
 public:
  explicit CountedCommunicator(Communicator& inner) : inner_(inner) {}

  double bytes_sent() const { return bytes_sent_; }  // since it was made

  int64_t rank() const override { return inner_.rank(); }
  int64_t size() const override { return inner_.size(); }
  void barrier() override { inner_.barrier(); }
  void all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) override;
  void all_gather(const Group& group, const void* in, void* out, int64_t bytes) override;
  void reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override;
  void all_to_all(const Group& group, const void* in, void* out, int64_t bytes) override;
  void all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) override;
  void shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override;
  void send(int64_t to, int64_t tag, const void* data, int64_t bytes) override;
  void receive(int64_t from, int64_t tag, void* data, int64_t bytes) override { inner_.receive(from, tag, data, bytes); }
  // Counted when they start.
  std::unique_ptr<Transfer> start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                             int64_t count) override;
  std::unique_ptr<Transfer> start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) override;
  std::unique_ptr<Transfer> start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override;
  std::unique_ptr<Transfer> start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override;
  void progress() override { inner_.progress(); }

 private:
  Communicator& inner_;
  double bytes_sent_ = 0;
};

}  // namespace mw
