// Table look-ups and their gradient.
#pragma once
#include <string>

#include "ir/builder.h"

namespace mw {

// y[ids' dims.., table's other dims..] = table[ids] along `dim`; an id outside the table (of this shard) gives zeros. A dim in both is
// a batch dim: each of its indices looks into its own part of the table.
Tensor gather_rows(Tensor table, Tensor ids, std::string dim, Source source = Source::here());
// The gradient: a table of `rows` zeros along `dim`, to which each row x[ids' dims.., other dims..] is added at its id.
Tensor scatter_rows(Tensor x, Tensor ids, Dim dim, DType dtype, Source source = Source::here());

// The same into a table of any dims and order; the dims of ids that stand in it are batch dims, the others are summed.
Tensor scatter_rows(Tensor x, Tensor ids, std::string dim, Type table, Source source = Source::here());

}  // namespace mw
