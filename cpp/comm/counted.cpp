#include "comm/counted.h"

namespace mw {
namespace {

double to_others(const Group& group, int64_t bytes) { return static_cast<double>(group.size() - 1) * static_cast<double>(bytes); }

// Scattered, then gathered: twice a share of the whole to each other member.
double of_all_reduce(const Group& group, DType dtype, int64_t count) {
  return 2 * to_others(group, count * dtype_bytes(dtype)) / static_cast<double>(group.size());
}

}  // namespace

void CountedCommunicator::all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) {
  bytes_sent_ += of_all_reduce(group, dtype, count);
  inner_.all_reduce(group, dtype, kind, in, out, count);
}

void CountedCommunicator::all_gather(const Group& group, const void* in, void* out, int64_t bytes) {
  bytes_sent_ += to_others(group, bytes);
  inner_.all_gather(group, in, out, bytes);
}

void CountedCommunicator::reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) {
  bytes_sent_ += to_others(group, count * dtype_bytes(dtype));
  inner_.reduce_scatter(group, dtype, in, out, count);
}

std::unique_ptr<Transfer> CountedCommunicator::start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                                                int64_t count) {
  bytes_sent_ += of_all_reduce(group, dtype, count);
  return inner_.start_all_reduce(group, dtype, kind, in, out, count);
}

std::unique_ptr<Transfer> CountedCommunicator::start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) {
  bytes_sent_ += to_others(group, bytes);
  return inner_.start_all_gather(group, in, out, bytes);
}

std::unique_ptr<Transfer> CountedCommunicator::start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out,
                                                                    int64_t count) {
  bytes_sent_ += to_others(group, count * dtype_bytes(dtype));
  return inner_.start_reduce_scatter(group, dtype, in, out, count);
}

void CountedCommunicator::all_to_all(const Group& group, const void* in, void* out, int64_t bytes) {
  bytes_sent_ += to_others(group, bytes);
  inner_.all_to_all(group, in, out, bytes);
}

void CountedCommunicator::all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) {
  for (int64_t member = 0; member < group.size(); ++member) {
    if (member != group.index) bytes_sent_ += static_cast<double>(in_bytes[member]);
  }
  inner_.all_to_all_v(group, in, in_bytes, out, out_bytes);
}

void CountedCommunicator::shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) {
  if (steps % group.size() != 0) bytes_sent_ += static_cast<double>(bytes);
  inner_.shift(group, steps, in, out, bytes);
}

std::unique_ptr<Transfer> CountedCommunicator::start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) {
  if (steps % group.size() != 0) bytes_sent_ += static_cast<double>(bytes);
  return inner_.start_shift(group, steps, in, out, bytes);
}

void CountedCommunicator::send(int64_t to, int64_t tag, const void* data, int64_t bytes) {
  bytes_sent_ += static_cast<double>(bytes);
  inner_.send(to, tag, data, bytes);
}

}  // namespace mw
