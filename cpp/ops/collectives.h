// The closed list of conversions that partition inserts. `axes` names parts of mesh axes as ir/layout.h writes them
// ("tensor:1:4": stride 1, size 4), major first; `parts` is the product of their sizes. Ranks that differ only on those parts take
// part together; shards are in the order of the parts.
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

Tensor all_gather(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source = Source::here());
Tensor reduce_scatter(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source = Source::here());
Tensor all_reduce(Tensor x, std::string kind, std::vector<std::string> axes, int64_t parts,
                  Source source = Source::here());  // kind: "sum", "max"
Tensor all_to_all(Tensor x, std::string split_dim, std::string concat_dim, std::vector<std::string> axes, int64_t parts,
                  Source source = Source::here());
Tensor shard_slice(Tensor x, std::string dim, std::vector<std::string> axes, int64_t parts, Source source = Source::here());
// First global index of this rank's shard of a dim: i32 scalar, (position of the rank along axes) * size. `behind`: of the part that lies
// so many before this one around the ring.
Tensor shard_offset(Builder& builder, std::vector<std::string> axes, int64_t parts, int64_t size, int64_t behind = 0,
                    Source source = Source::here());
// Of a shard in zigzag order (mesh/mesh.h): the first indices of its two halves, blocks i and 2 parts - 1 - i of `size / 2`.
std::vector<Tensor> zigzag_offsets(Builder& builder, const std::vector<std::string>& axes, int64_t parts, int64_t size, int64_t behind = 0);
// Around a ring: each part's value to the next one.
Tensor ring_shift(Tensor x, std::vector<std::string> axes, int64_t parts, Source source = Source::here());

}  // namespace mw
