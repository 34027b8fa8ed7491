#include "comm/communicator.h"

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace mw {
namespace {

void copy_bytes(const void* in, void* out, int64_t bytes) {
  if (in != out) std::memcpy(out, in, static_cast<size_t>(bytes));
}

// All of it, later.
template <typename Call>
class Postponed : public Transfer {
 public:
  explicit Postponed(Call call) : call_(std::move(call)) {}
  void finish() override { call_(); }

 private:
  Call call_;
};

template <typename Call>
std::unique_ptr<Transfer> postpone(Call call) {
  return std::make_unique<Postponed<Call>>(std::move(call));
}

}  // namespace

GroupPart parse_group_part(const std::string& text) {
  const size_t first = text.find(':'), second = text.find(':', first + 1);
  MW_CHECK(first != std::string::npos && second != std::string::npos, "'", text, "' is not axis:stride:size");
  return {text.substr(0, first), std::atoll(text.c_str() + first + 1), std::atoll(text.c_str() + second + 1)};
}

Group make_group(const Mesh& mesh, int64_t rank, const std::vector<GroupPart>& parts) {
  int64_t total = 1;
  for (const GroupPart& part : parts) total *= part.size;
  Group group;
  group.ranks.assign(static_cast<size_t>(total), -1);
  const auto position = [&](int64_t r) {
    int64_t index = 0;
    for (const GroupPart& part : parts) index = index * part.size + mesh.index_in(r, part.axis, part.stride, part.size);
    return index;
  };
  // Equal on everything but the parts: every axis coordinate less the digits that the parts own.
  const auto same_elsewhere = [&](int64_t r) {
    for (const std::string& axis : Mesh::axis_names()) {
      int64_t mine = mesh.coordinate(rank, axis), other = mesh.coordinate(r, axis);
      for (const GroupPart& part : parts) {
        if (part.axis != axis) continue;
        mine -= mine / part.stride % part.size * part.stride;
        other -= other / part.stride % part.size * part.stride;
      }
      if (mine != other) return false;
    }
    return true;
  };
  for (int64_t r = 0; r < mesh.size(); ++r) {
    if (same_elsewhere(r)) group.ranks[static_cast<size_t>(position(r))] = r;
  }
  for (const int64_t r : group.ranks) MW_CHECK(r >= 0, "a group has a hole");
  group.index = position(rank);
  return group;
}

Group everyone(const Communicator& comm) {
  Group group;
  group.ranks.resize(static_cast<size_t>(comm.size()));
  std::iota(group.ranks.begin(), group.ranks.end(), int64_t{0});
  group.index = comm.rank();
  return group;
}

std::unique_ptr<Transfer> Communicator::start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                                         int64_t count) {
  return postpone([=, this] { all_reduce(group, dtype, kind, in, out, count); });
}

std::unique_ptr<Transfer> Communicator::start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) {
  return postpone([=, this] { all_gather(group, in, out, bytes); });
}

std::unique_ptr<Transfer> Communicator::start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) {
  return postpone([=, this] { reduce_scatter(group, dtype, in, out, count); });
}

std::unique_ptr<Transfer> Communicator::start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) {
  return postpone([=, this] { shift(group, steps, in, out, bytes); });
}

void SingleRank::all_reduce(const Group&, DType dtype, ReduceKind, const void* in, void* out, int64_t count) {
  copy_bytes(in, out, count * dtype_bytes(dtype));
}
void SingleRank::all_gather(const Group&, const void* in, void* out, int64_t bytes) { copy_bytes(in, out, bytes); }
void SingleRank::reduce_scatter(const Group&, DType dtype, const void* in, void* out, int64_t count) {
  copy_bytes(in, out, count * dtype_bytes(dtype));
}
void SingleRank::all_to_all(const Group&, const void* in, void* out, int64_t bytes) { copy_bytes(in, out, bytes); }
void SingleRank::all_to_all_v(const Group&, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) {
  MW_CHECK(in_bytes[0] == out_bytes[0], "a rank sends itself ", in_bytes[0], " bytes and expects ", out_bytes[0]);
  copy_bytes(in, out, in_bytes[0]);
}
void SingleRank::shift(const Group&, int64_t, const void* in, void* out, int64_t bytes) { copy_bytes(in, out, bytes); }
void SingleRank::send(int64_t, int64_t, const void*, int64_t) { throw InternalError("one rank on its own sends to nobody"); }
void SingleRank::receive(int64_t, int64_t, void*, int64_t) { throw InternalError("one rank on its own receives from nobody"); }

}  // namespace mw
