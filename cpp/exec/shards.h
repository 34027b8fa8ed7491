// A rank's part of a whole array: where it begins along each dim, and copies in and out.
#pragma once
#include <cstddef>
#include <vector>

#include "comm/communicator.h"
#include "ir/layout.h"

namespace mw {

// First index of the rank's shard along each dim of `global`, none of which lies in zigzag order.
std::vector<int64_t> shard_start(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank);

// A block of a row-major array: `type` has the array's dims with the block's sizes, `start` is where it begins in the whole.
struct Block {
  Type type;
  std::vector<int64_t> start;
  static Block whole(const Type& type) { return {type, std::vector<int64_t>(type.dims.size(), 0)}; }
};

// Copies what two blocks of one array share, from one dense block to the other.
void copy_shared(const Block& from_block, const std::byte* from, const Block& to_block, std::byte* to);

// Copies the rank's shard of `global`, which may lie in zigzag order, out of the block `from_block` of the array; the array's index of
// the first element of `global` is `origin`. `to` is dense.
void copy_shard(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank, const std::vector<int64_t>& origin,
                const Block& from_block, const std::byte* from, std::byte* to);

}  // namespace mw
