#include "exec/shards.h"

#include <cstring>

#include "base/error.h"

namespace mw {
namespace {

// Visits the contiguous runs of a block: body(offset in the whole array, offset in the block, bytes).
template <typename Body>
void for_each_run(const Type& whole, const std::vector<int64_t>& start, const Type& local, Body body) {
  MW_CHECK(whole.rank() == local.rank(), "a block of ", to_string(local), " of ", to_string(whole));
  const int64_t element = dtype_bytes(whole.dtype);
  const size_t rank = static_cast<size_t>(whole.rank());
  if (local.elements() == 0) return;
  // Inner dims that are whole join the run.
  size_t inner = rank;
  int64_t run = 1;
  while (inner > 0) {
    --inner;
    run *= local.dims[inner].size;
    if (local.dims[inner].size != whole.dims[inner].size) break;
  }
  const std::vector<int64_t> strides = whole.strides();
  std::vector<int64_t> index(inner, 0);
  int64_t at = 0;
  for (size_t d = 0; d < rank; ++d) at += start[d] * strides[d];
  for (int64_t block = 0;; block += run) {
    body(at * element, block * element, run * element);
    size_t d = inner;
    while (d > 0) {
      --d;
      at += strides[d];
      if (++index[d] < local.dims[d].size) break;
      at -= strides[d] * local.dims[d].size;
      index[d] = 0;
      if (d == 0) return;
    }
    if (inner == 0) return;
  }
}

}  // namespace

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

void copy_block_out(const Type& whole, const std::byte* from, const std::vector<int64_t>& start, const Type& local, std::byte* to) {
  for_each_run(whole, start, local,
               [&](int64_t w, int64_t b, int64_t bytes) { std::memcpy(to + b, from + w, static_cast<size_t>(bytes)); });
}

void copy_block_in(const Type& whole, std::byte* to, const std::vector<int64_t>& start, const Type& local, const std::byte* from) {
  for_each_run(whole, start, local,
               [&](int64_t w, int64_t b, int64_t bytes) { std::memcpy(to + w, from + b, static_cast<size_t>(bytes)); });
}

}  // namespace mw
