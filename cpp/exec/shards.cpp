#include "exec/shards.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace mw {
std::vector<int64_t> shard_start(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank) {
  std::vector<int64_t> start;
  for (const Dim& dim : global.dims) {
    const std::vector<AxisPart>& parts = layout.parts(dim.name);
    int64_t index = 0;
    for (const AxisPart& part : parts) index = index * part.size + mesh.index_in(rank, part.axis, part.stride, part.size);
    start.push_back(index * (dim.size / total_size(parts)));
  }
  return start;
}

void copy_shared(const Block& from_block, const std::byte* from, const Block& to_block, std::byte* to) {
  const size_t rank = from_block.type.dims.size();
  MW_CHECK(to_block.type.dims.size() == rank && from_block.type.dtype == to_block.type.dtype, to_string(from_block.type), " and ",
           to_string(to_block.type), " are not blocks of one array");
  const std::vector<int64_t> from_strides = from_block.type.strides(), to_strides = to_block.type.strides();
  std::vector<int64_t> sizes(rank);
  int64_t from_at = 0, to_at = 0;
  for (size_t d = 0; d < rank; ++d) {
    const int64_t from_start = from_block.start[d], to_start = to_block.start[d], begin = std::max(from_start, to_start);
    sizes[d] = std::min(from_start + from_block.type.dims[d].size, to_start + to_block.type.dims[d].size) - begin;
    if (sizes[d] <= 0) return;
    from_at += (begin - from_start) * from_strides[d];
    to_at += (begin - to_start) * to_strides[d];
  }
  // Inner dims that are whole in both join the run.
  size_t outer = rank;
  int64_t run = 1;
  while (outer > 0) {
    --outer;
    run *= sizes[outer];
    if (sizes[outer] != from_block.type.dims[outer].size || sizes[outer] != to_block.type.dims[outer].size) break;
  }
  const int64_t element = dtype_bytes(from_block.type.dtype);
  std::vector<int64_t> index(outer, 0);
  while (true) {
    std::memcpy(to + to_at * element, from + from_at * element, static_cast<size_t>(run * element));
    size_t d = outer;
    while (d > 0) {
      --d;
      from_at += from_strides[d];
      to_at += to_strides[d];
      if (++index[d] < sizes[d]) break;
      from_at -= from_strides[d] * sizes[d];
      to_at -= to_strides[d] * sizes[d];
      index[d] = 0;
      if (d == 0) return;
    }
    if (outer == 0) return;
  }
}

}  // namespace mw
