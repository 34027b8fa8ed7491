// A rank's part of a whole array: where it begins along each dim, and copies in and out.
#pragma once
#include <cstddef>
#include <vector>

#include "comm/communicator.h"
#include "ir/layout.h"

namespace mw {

// First index of the rank's shard along each dim of `global`.
std::vector<int64_t> shard_start(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank);

// Copies the block [start, start + local) of a row-major array of type `whole` to a contiguous one, and back.
void copy_block_out(const Type& whole, const std::byte* from, const std::vector<int64_t>& start, const Type& local, std::byte* to);
void copy_block_in(const Type& whole, std::byte* to, const std::vector<int64_t>& start, const Type& local, const std::byte* from);

}  // namespace mw
