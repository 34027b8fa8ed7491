#include "exec/collect.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace mw {
namespace {

Block shared_part(const Block& a, const Block& b) {
  Block part = a;
  for (size_t d = 0; d < a.start.size(); ++d) {
    const int64_t begin = std::max(a.start[d], b.start[d]);
    const int64_t end = std::min(a.start[d] + a.type.dims[d].size, b.start[d] + b.type.dims[d].size);
    part.start[d] = begin;
    part.type.dims[d].size = std::max<int64_t>(0, end - begin);
  }
  return part;
}

}  // namespace

void collect_block(Communicator& comm, const std::vector<std::optional<Block>>& shards, const std::byte* mine, const Block& block,
                   std::byte* out, int64_t receiver) {
  const auto me = static_cast<size_t>(comm.rank());
  std::map<std::vector<int64_t>, std::vector<size_t>> holders;  // of the shard that begins there
  for (size_t r = 0; r < shards.size(); ++r) {
    if (shards[r]) holders[shards[r]->start].push_back(r);
  }
  if (holders.size() == 1 && holders.begin()->second.size() == shards.size()) return;  // everyone has everything
  // The rank that gives `to` the shard of `holder`; `to` itself where it has it.
  const auto giver = [&](size_t to, size_t holder) {
    const std::vector<size_t>& ranks = holders.at(shards[holder]->start);
    return std::find(ranks.begin(), ranks.end(), to) != ranks.end() ? to : ranks[to % ranks.size()];
  };
  const auto takes_part = [&](size_t to) { return receiver < 0 || static_cast<size_t>(receiver) == to; };
  std::vector<int64_t> in_bytes(shards.size(), 0), out_bytes(shards.size(), 0);
  const Block given = shards[me] ? shared_part(block, *shards[me]) : Block{};
  for (size_t r = 0; r < shards.size(); ++r) {
    if (r == me) continue;
    if (shards[me] && takes_part(r) && giver(r, me) == me) in_bytes[r] = given.type.bytes();
    if (shards[r] && takes_part(me) && giver(me, r) == r) out_bytes[r] = shared_part(block, *shards[r]).type.bytes();
  }
  std::vector<std::byte> in(static_cast<size_t>(std::accumulate(in_bytes.begin(), in_bytes.end(), int64_t{0})));
  std::vector<std::byte> received(static_cast<size_t>(std::accumulate(out_bytes.begin(), out_bytes.end(), int64_t{0})));
  for (int64_t at = 0; const int64_t bytes : in_bytes) {
    if (bytes > 0) copy_shared(*shards[me], mine, given, in.data() + at);
    at += bytes;
  }
  comm.all_to_all_v(everyone(comm), in.data(), in_bytes.data(), received.data(), out_bytes.data());
  int64_t at = 0;
  for (size_t r = 0; r < shards.size(); ++r) {
    if (out_bytes[r] > 0) copy_shared(shared_part(block, *shards[r]), received.data() + at, block, out);
    at += out_bytes[r];
  }
}

}  // namespace mw
