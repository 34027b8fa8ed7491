// Where the rules put one op: a table is read over the op's loop space, which is every dim name of its operands and results.
//
//   dot(x[batch, seq, embed], w[mlp, embed])    batch:data  mlp:tensor  seq:tensor    ->    batch:data, mlp:tensor
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "ir/layout.h"
#include "ir/program.h"
#include "mesh/mesh.h"
#include "mesh/rules.h"

namespace mw {

using DimSizes = std::vector<std::pair<std::string, int64_t>>;

// Results first: their order decides which dim `*` calls outermost.
DimSizes loop_space(const Signature& signature);

DimRole role_of(const Op& op, const Signature& signature, std::string_view dim);

// The dims whose shards `dim` carries (OpDef::carries).
std::vector<std::string> carried_by(const Op& op, const Signature& signature, std::string_view dim);

// Whether the op reads rows that exchange_experts sent to the ranks of their experts over this axis: each rank holds the rows of its own
// experts, so nothing is summed over it.
bool is_split_by_expert(const Op& op, const AxisPart& part);

// The layout of the whole loop space. Factors of axes in `partial` are not given out: over them the op's result stays a partial sum.
// UserError naming the op when an axis does not divide a dim.
Layout op_layout(const Program& program, const Op& op, const RuleTable& table, const Mesh& mesh,
                 const std::vector<PartialOver>& partial = {});

// The layout of a value that is stored (table of its kind) over its own dims.
Layout stored_layout(const RuleTable& table, const Mesh& mesh, const Type& type);

// True when the rules shard a dim that the op needs whole and its decomposition does not: it is partitioned part by part.
bool is_decomposed(const Program& program, const Op& op, const RuleTable& table, const Mesh& mesh);

// The entries of `layout` for the dims of `type`; not its partial sums.
Layout restricted(const Layout& layout, const Type& type);

// rename, split and merge keep the bytes, so the layout follows them. Dims in the same place on both sides keep their shards; of dims
// that are split or merged only the outermost may be sharded.
struct ViewLayouts {
  Layout from, to;
};
ViewLayouts view_layouts(const Type& from, const Type& to, Layout layout);

}  // namespace mw
