// The op list: one row per op file. Each file defines `std::span<const OpDef> NAME_ops()`.
#pragma once
#include <span>

#include "ir/op_def.h"

#define MW_OP_FAMILIES(ROW) \
  ROW(elementwise_ops)      \
  ROW(dot_ops)              \
  ROW(reduce_ops)           \
  ROW(view_ops)             \
  ROW(shape_ops)            \
  ROW(slice_ops)            \
  ROW(gather_ops)           \
  ROW(top_k_ops)            \
  ROW(route_ops)            \
  ROW(expert_rows_ops)      \
  ROW(combine_ops)          \
  ROW(grouped_dot_ops)      \
  ROW(random_ops)           \
  ROW(collective_ops)       \
  ROW(expert_exchange_ops)  \
  ROW(norm_ops)             \
  ROW(rope_ops)             \
  ROW(attention_ops)        \
  ROW(chunk_segments_ops)   \
  ROW(cached_attention_ops) \
  ROW(gated_activation_ops) \
  ROW(cross_entropy_ops)    \
  ROW(optimizer_update_ops) \
  ROW(offload_ops)          \
  ROW(elementwise_chain_ops)

namespace mw {
#define MW_DECLARE_FAMILY(family) std::span<const OpDef> family();
MW_OP_FAMILIES(MW_DECLARE_FAMILY)
#undef MW_DECLARE_FAMILY
}  // namespace mw
