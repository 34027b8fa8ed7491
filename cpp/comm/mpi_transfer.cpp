#include "comm/mpi_transfer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/combine.h"

namespace mw {
namespace {

constexpr int kFirstTag = 2, kTags = 1 << 20;
constexpr int64_t kSmallBytes = int64_t{16} << 10;    // up to here everyone gets everything: one exchange instead of two
constexpr int64_t kPiecesBytes = int64_t{512} << 10;  // of the others' pieces of a sum that are received at a time: they stay in the cache
constexpr int64_t kElementsPerBlock = 16;             // where blocks of a sum begin

std::byte* at(void* data, int64_t bytes) { return static_cast<std::byte*>(data) + bytes; }
const std::byte* at(const void* data, int64_t bytes) { return static_cast<const std::byte*>(data) + bytes; }
size_t index(int64_t i) { return static_cast<size_t>(i); }

void copy(void* out, const void* in, int64_t bytes) {
  if (in != out && bytes > 0) std::memcpy(out, in, index(bytes));
}

}  // namespace

MpiRank::Moving::Moving(MpiRank& rank, const Group& group) : rank_(rank), group_(group) {
  if (group.size() > 1) {
    Channel& channel = rank.channel_of(group);
    comm_ = channel.comm;
    tag_ = kFirstTag + channel.transfers++ % kTags;
  }
  rank_.moving_.push_back(this);
}

// One that is not over is that of a rank which fails: its process ends.
MpiRank::Moving::~Moving() {
  std::erase(rank_.moving_, this);
  if (!received_.empty()) rank_.spare_.push_back(std::move(received_));
}

void MpiRank::Moving::advance() {
  while (!is_over() && stages_[stage_]()) ++stage_;
}

void MpiRank::Moving::finish() {
  for (int64_t tries = 0;; ++tries) {
    rank_.progress();  // of all, this one among them
    if (is_over()) return;
    const int64_t gone = rank_.pause(tries, group_.ranks);
    if (gone < 0) continue;
    advance();
    if (!is_over()) rank_.fail_without(gone);
  }
}

void MpiRank::Moving::take_memory(int64_t bytes) {
  if (!rank_.spare_.empty()) {
    received_ = std::move(rank_.spare_.back());
    rank_.spare_.pop_back();
  }
  received_.resize(std::max(received_.size(), index(bytes)));
}

void MpiRank::Moving::then_gather(const void* in, void* out, std::vector<int64_t> start, std::vector<int64_t> bytes) {
  stages_.emplace_back([=, this, start = std::move(start), bytes = std::move(bytes)] {
    const int64_t n = group_.size(), me = group_.index;
    for (int64_t step = 1; step < n; ++step) {
      const int64_t from = (me - step + n) % n;
      rank_.start_receive(comm_, from, tag_, at(out, start[index(from)]), bytes[index(from)], requests_[0]);
    }
    for (int64_t step = 1; step < n; ++step) rank_.start_send(comm_, (me + step) % n, tag_, in, bytes[index(me)], requests_[0]);
    copy(at(out, start[index(me)]), in, bytes[index(me)]);
    return true;
  });
  stages_.emplace_back([this] { return rank_.is_done(requests_[0]); });
}

// Pieces are added while the next ones are on their way.
void MpiRank::Moving::then_reduce(DType dtype, ReduceKind kind, const void* in, const Blocks& blocks, void* out) {
  const int64_t n = group_.size(), width = dtype_bytes(dtype);
  sum_ = {dtype, kind, at(in, 0), at(out, 0), blocks};
  const int64_t largest = *std::max_element(blocks.count.begin(), blocks.count.end());
  sum_.piece = std::max(kElementsPerBlock, std::min(largest, kPiecesBytes / (n - 1) / width));
  sum_.pieces = (largest + sum_.piece - 1) / sum_.piece;
  stages_.emplace_back([=, this] {
    take_memory(2 * (n - 1) * sum_.piece * width);  // two pieces of every other member: one to add, one on its way
    start_piece(0);
    start_piece(1);
    return true;
  });
  stages_.emplace_back([this] { return add_pieces(); });
}

std::byte* MpiRank::Moving::slot(int64_t member, int64_t number) {
  const int64_t other = member < group_.index ? member : member - 1;
  return received_.data() + (number % 2 * (group_.size() - 1) + other) * sum_.piece * dtype_bytes(sum_.dtype);
}

int64_t MpiRank::Moving::piece_length(int64_t member, int64_t number) const {
  return std::clamp(sum_.blocks.count[index(member)] - number * sum_.piece, int64_t{0}, sum_.piece);
}

void MpiRank::Moving::start_piece(int64_t number) {
  if (number >= sum_.pieces) return;
  const int64_t n = group_.size(), me = group_.index, width = dtype_bytes(sum_.dtype);
  Requests& requests = requests_[index(number % 2)];
  for (int64_t step = 1; step < n; ++step) {
    const int64_t from = (me - step + n) % n;
    rank_.start_receive(comm_, from, tag_, slot(from, number), piece_length(me, number) * width, requests);
  }
  for (int64_t step = 1; step < n; ++step) {
    const int64_t to = (me + step) % n;
    rank_.start_send(comm_, to, tag_, sum_.in + (sum_.blocks.start[index(to)] + number * sum_.piece) * width,
                     piece_length(to, number) * width, requests);
  }
}

// Those that are here. Whether they were the last.
bool MpiRank::Moving::add_pieces() {
  const int64_t me = group_.index, width = dtype_bytes(sum_.dtype);
  std::vector<const void*> terms(index(group_.size()));
  for (; sum_.next < sum_.pieces; ++sum_.next) {
    if (!rank_.is_done(requests_[index(sum_.next % 2)])) return false;
    const int64_t first = sum_.next * sum_.piece;
    for (int64_t member = 0; member < group_.size(); ++member) {
      terms[index(member)] = member == me ? sum_.in + (sum_.blocks.start[index(me)] + first) * width : slot(member, sum_.next);
    }
    if (const int64_t count = piece_length(me, sum_.next); count > 0)
      combine(sum_.dtype, sum_.kind, terms, 0, sum_.out + first * width, count);
    start_piece(sum_.next + 2);
  }
  return true;
}

void MpiRank::Moving::all_gather(const void* in, void* out, int64_t bytes) {
  std::vector<int64_t> start;
  for (int64_t member = 0; member < group_.size(); ++member) start.push_back(member * bytes);
  then_gather(in, out, start, std::vector<int64_t>(start.size(), bytes));
  advance();
}

void MpiRank::Moving::reduce_scatter(DType dtype, const void* in, void* out, int64_t count) {
  if (group_.size() == 1) return copy(out, in, count * dtype_bytes(dtype));
  Blocks blocks;
  for (int64_t member = 0; member < group_.size(); ++member) {
    blocks.start.push_back(member * count);
    blocks.count.push_back(count);
  }
  then_reduce(dtype, ReduceKind::kSum, in, blocks, out);
  advance();
}

void MpiRank::Moving::all_reduce(DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) {
  const int64_t n = group_.size(), width = dtype_bytes(dtype), bytes = count * width;
  if (n == 1) return copy(out, in, bytes);
  if (bytes <= kSmallBytes) {
    take_memory(n * bytes);
    all_gather(in, received_.data(), bytes);
    stages_.emplace_back([=, this] {
      std::vector<const void*> terms;
      for (int64_t member = 0; member < n; ++member) terms.push_back(received_.data() + member * bytes);
      combine(dtype, kind, terms, 0, out, count);
      return true;
    });
    return;
  }
  // Each member adds one block and hands it out.
  const int64_t share = (count + n * kElementsPerBlock - 1) / (n * kElementsPerBlock) * kElementsPerBlock;
  Blocks blocks;
  std::vector<int64_t> start, length;
  for (int64_t member = 0; member < n; ++member) {
    blocks.start.push_back(std::min(member * share, count));
    blocks.count.push_back(std::min(share, count - blocks.start.back()));
    start.push_back(blocks.start.back() * width);
    length.push_back(blocks.count.back() * width);
  }
  void* mine = at(out, start[index(group_.index)]);
  then_reduce(dtype, kind, in, blocks, mine);
  then_gather(mine, out, start, length);
  advance();
}

void MpiRank::Moving::shift(int64_t steps, const void* in, void* out, int64_t bytes) {
  const int64_t n = group_.size(), me = group_.index, distance = (steps % n + n) % n;
  if (distance == 0) return copy(out, in, bytes);
  rank_.start_receive(comm_, (me - distance + n) % n, tag_, out, bytes, requests_[0]);
  rank_.start_send(comm_, (me + distance) % n, tag_, in, bytes, requests_[0]);
  stages_.emplace_back([this] { return rank_.is_done(requests_[0]); });
}

void MpiRank::all_gather(const Group& group, const void* in, void* out, int64_t bytes) {
  Moving transfer(*this, group);
  transfer.all_gather(in, out, bytes);
  transfer.finish();
}

void MpiRank::reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) {
  Moving transfer(*this, group);
  transfer.reduce_scatter(dtype, in, out, count);
  transfer.finish();
}

void MpiRank::all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) {
  Moving transfer(*this, group);
  transfer.all_reduce(dtype, kind, in, out, count);
  transfer.finish();
}

void MpiRank::shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) {
  Moving transfer(*this, group);
  transfer.shift(steps, in, out, bytes);
  transfer.finish();
}

std::unique_ptr<Transfer> MpiRank::start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) {
  auto transfer = std::make_unique<Moving>(*this, group);
  transfer->all_gather(in, out, bytes);
  return transfer;
}

std::unique_ptr<Transfer> MpiRank::start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) {
  auto transfer = std::make_unique<Moving>(*this, group);
  transfer->reduce_scatter(dtype, in, out, count);
  return transfer;
}

std::unique_ptr<Transfer> MpiRank::start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                                    int64_t count) {
  auto transfer = std::make_unique<Moving>(*this, group);
  transfer->all_reduce(dtype, kind, in, out, count);
  return transfer;
}

std::unique_ptr<Transfer> MpiRank::start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) {
  auto transfer = std::make_unique<Moving>(*this, group);
  transfer->shift(steps, in, out, bytes);
  return transfer;
}

}  // namespace mw
