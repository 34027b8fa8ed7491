#include "exec/shards.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace mw {
namespace {

// A stretch of a dim that a shard holds, `from` its first global index.
struct Run {
  int64_t from, size;
};

// The runs of a rank's shard, in the order in which they lie there: one, or two in zigzag order.
std::vector<Run> shard_runs(const Dim& dim, const std::vector<AxisPart>& parts, const Mesh& mesh, int64_t rank) {
  std::vector<Run> runs{{0, dim.size}};
  int64_t size = dim.size;
  for (const AxisPart& part : parts) {
    const int64_t index = mesh.index_in(rank, part.axis, part.stride, part.size);
    size /= part.size;
    if (is_zigzag(dim.name, part.axis)) {
      MW_CHECK(runs.size() == 1, "zigzag order within shards of ", dim.name);
      const int64_t half = size / 2, first = runs[0].from;
      runs = {{first + index * half, half}, {first + (2 * part.size - 1 - index) * half, half}};
      continue;
    }
    std::vector<Run> kept;
    int64_t at = 0;  // of a run within the shard so far
    for (const Run& run : runs) {
      const int64_t begin = std::max(at, index * size), end = std::min(at + run.size, (index + 1) * size);
      if (begin < end) kept.push_back({run.from + begin - at, end - begin});
      at += run.size;
    }
    runs = std::move(kept);
  }
  return runs;
}

// Copies what is in both blocks and in [begin, end) of every dim.
void copy_window(const Block& from_block, const std::byte* from, const Block& to_block, std::byte* to, const std::vector<int64_t>& begin,
                 const std::vector<int64_t>& end) {
  const size_t rank = from_block.type.dims.size();
  MW_CHECK(to_block.type.dims.size() == rank && from_block.type.dtype == to_block.type.dtype, to_string(from_block.type), " and ",
           to_string(to_block.type), " are not blocks of one array");
  const std::vector<int64_t> from_strides = from_block.type.strides(), to_strides = to_block.type.strides();
  std::vector<int64_t> sizes(rank);
  int64_t from_at = 0, to_at = 0;
  for (size_t d = 0; d < rank; ++d) {
    const int64_t from_start = from_block.start[d], to_start = to_block.start[d], first = std::max({from_start, to_start, begin[d]});
    sizes[d] = std::min({from_start + from_block.type.dims[d].size, to_start + to_block.type.dims[d].size, end[d]}) - first;
    if (sizes[d] <= 0) return;
    from_at += (first - from_start) * from_strides[d];
    to_at += (first - to_start) * to_strides[d];
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

}  // namespace

std::vector<int64_t> shard_start(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank) {
  std::vector<int64_t> start;
  for (const Dim& dim : global.dims) {
    const std::vector<Run> runs = shard_runs(dim, layout.parts(dim.name), mesh, rank);
    MW_CHECK(runs.size() == 1, "the shard of ", dim.name, " in ", to_string(global), " is not one block");
    start.push_back(runs[0].from);
  }
  return start;
}

void copy_shared(const Block& from_block, const std::byte* from, const Block& to_block, std::byte* to) {
  copy_window(from_block, from, to_block, to, from_block.start,
              std::vector<int64_t>(from_block.start.size(), std::numeric_limits<int64_t>::max()));
}

void copy_shard(const Type& global, const Layout& layout, const Mesh& mesh, int64_t rank, const std::vector<int64_t>& origin,
                const Block& from_block, const std::byte* from, std::byte* to) {
  const size_t dims = global.dims.size();
  std::vector<std::vector<Run>> runs;
  size_t combinations = 1;
  for (const Dim& dim : global.dims) {
    runs.push_back(shard_runs(dim, layout.parts(dim.name), mesh, rank));
    combinations *= runs.back().size();
  }
  // Seen from one run of every dim, the shard is a block of the array of which that run is a window.
  for (size_t n = 0; n < combinations; ++n) {
    Block shard{local_type(global, layout), std::vector<int64_t>(dims)};
    std::vector<int64_t> begin(dims), end(dims);
    for (size_t d = 0, left = n; d < dims; ++d) {
      const size_t chosen = left % runs[d].size();
      left /= runs[d].size();
      int64_t before = 0;
      for (size_t r = 0; r < chosen; ++r) before += runs[d][r].size;
      begin[d] = origin[d] + runs[d][chosen].from;
      end[d] = begin[d] + runs[d][chosen].size;
      shard.start[d] = begin[d] - before;
    }
    copy_window(from_block, from, shard, to, begin, end);
  }
}

}  // namespace mw
