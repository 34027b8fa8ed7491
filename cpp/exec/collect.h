// Gathers a block of a sharded array from the ranks that hold it, when they are in different processes.
#pragma once
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "exec/shards.h"

namespace mw {

// `shards`: what each rank holds (a rank of another stage of a pipeline: nothing), ranks in order; `mine`: this rank's. Puts what `block`
// shares with the shards of others into `out`, for every rank or for `receiver` alone (-1: every rank); from several holders of one shard
// each receiver asks one. All ranks take part.
void collect_block(Communicator& comm, const std::vector<std::optional<Block>>& shards, const std::byte* mine, const Block& block,
                   std::byte* out, int64_t receiver);

}  // namespace mw
