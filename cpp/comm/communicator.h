// Communicator: how the ranks of a mesh exchange data. Collective calls are made by every rank of a group, in the same order.
//
//   Group group = make_group(mesh, rank, {{"tensor", 4, 1}});
//   comm.all_reduce(group, DType::kF32, ReduceKind::kSum, in, out, count);
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "mesh/mesh.h"

namespace mw {

// A factor of a mesh axis, as a collective names it: "axis:stride:size".
struct GroupPart {
  std::string axis;
  int64_t stride;
  int64_t size;
};
GroupPart parse_group_part(const std::string& text);

// The ranks that differ from this one on some parts of mesh axes only, in the order of those parts (major first).
struct Group {
  std::vector<int64_t> ranks;
  int64_t index = 0;  // of this rank
  int64_t size() const { return static_cast<int64_t>(ranks.size()); }
};
Group make_group(const Mesh& mesh, int64_t rank, const std::vector<GroupPart>& parts);

enum class ReduceKind : uint8_t { kSum, kMax };

// A collective that was started.
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual void finish() = 0;  // returns when it is done; once
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;
  virtual void barrier() = 0;
  // `in` and `out` must not overlap unless they are equal. Sums are formed in the order of the group, in FP32 for 16-bit floats, so all
  // ranks get the same bits.
  virtual void all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) = 0;
  // out: [group][bytes]
  virtual void all_gather(const Group& group, const void* in, void* out, int64_t bytes) = 0;
  // in: [group][count], out: [count], the sum of everyone's block `index`.
  virtual void reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) = 0;
  // in, out: [group][bytes]; block j of rank i goes to block i of rank j.
  virtual void all_to_all(const Group& group, const void* in, void* out, int64_t bytes) = 0;
  // all_to_all of blocks of any sizes, one after another: in_bytes[j] go to member j, out_bytes[j] come from it.
  virtual void all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) = 0;
  // Around a ring: `in` goes to member index + steps, `out` comes from member index - steps. `in` and `out` must not overlap.
  virtual void shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) = 0;
  // Point to point: messages between two ranks with one tag (0 to 2^30) arrive in the order they were sent. `send` copies and returns at
  // once.
  virtual void send(int64_t to, int64_t tag, const void* data, int64_t bytes) = 0;
  virtual void receive(int64_t from, int64_t tag, void* data, int64_t bytes) = 0;

  // Four of them without waiting. Buffers stay as they are until `finish`; in between, any other call may be made. All members of a group
  // start and finish their calls in one order. Here everything happens in `finish`.
  virtual std::unique_ptr<Transfer> start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                                     int64_t count);
  virtual std::unique_ptr<Transfer> start_all_gather(const Group& group, const void* in, void* out, int64_t bytes);
  virtual std::unique_ptr<Transfer> start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count);
  virtual std::unique_ptr<Transfer> start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes);
  // Called often while computing, where messages need it to move on.
  virtual void progress() {}
};

// All ranks, as a group.
Group everyone(const Communicator& comm);

// One rank on its own: every group has one member.
class SingleRank : public Communicator {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void barrier() override {}
  void all_reduce(const Group&, DType dtype, ReduceKind, const void* in, void* out, int64_t count) override;
  void all_gather(const Group&, const void* in, void* out, int64_t bytes) override;
  void reduce_scatter(const Group&, DType dtype, const void* in, void* out, int64_t count) override;
  void all_to_all(const Group&, const void* in, void* out, int64_t bytes) override;
  void all_to_all_v(const Group&, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) override;
  void shift(const Group&, int64_t steps, const void* in, void* out, int64_t bytes) override;
  void send(int64_t to, int64_t tag, const void* data, int64_t bytes) override;
  void receive(int64_t from, int64_t tag, void* data, int64_t bytes) override;
};

}  // namespace mw
