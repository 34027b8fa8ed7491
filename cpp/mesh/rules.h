// Rule tables: which mesh axes shard which dims. A table is a list of rows `dim: axis`, read from the top, once per op, over the op's
// loop space; each axis is given out once.
//
//   compute     batch:data  batch:fsdp  batch:expert  expert_rows:data  expert_rows:fsdp  expert_rows:expert  expert_rows:context
//               experts:expert  kv_heads:tensor part  q_per_kv:tensor  mlp:tensor  expert_mlp:tensor  vocab:tensor  seq:context
//               seq:tensor
//   parameters  experts:expert  kv_heads:tensor part  q_per_kv:tensor  mlp:tensor  expert_mlp:tensor  vocab:tensor  *:fsdp
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mesh/mesh.h"

namespace mw {

struct RuleRow {
  std::string dim;  // "*": the outermost dim that the axis divides, or none (storage tables only)
  std::string axis;
  bool part = false;  // take the largest factor of the axis that divides the dim, leave the rest to the rows below
  bool operator==(const RuleRow&) const = default;
};

using RuleTable = std::vector<RuleRow>;

// How attention meets keys and values of a sequence that is sharded in zigzag order: all of them gathered before it, or one rank's after
// the other, as they go around a ring.
enum class ContextAttention : uint8_t { kGather, kRing };
ContextAttention parse_context_attention(std::string_view text);  // "gather", "ring"
std::string to_string(ContextAttention attention);

struct Rules {
  RuleTable compute;     // ops of forward and backward
  RuleTable parameters;  // storage of weights
  RuleTable gradients;   // accumulators
  RuleTable optimizer;   // moments, masters, ops of the update
  ContextAttention context_attention = ContextAttention::kGather;
  bool operator==(const Rules&) const = default;
};

// "kv_heads:tensor part" -> row. UserError for an unknown axis or another form, or a part of an axis that is
// taken whole.
RuleRow parse_rule(std::string_view text);
std::string to_string(const RuleRow& row);

// data is DDP, fsdp is ZeRO-3, tensor has sequence parallelism. Other layouts: configs/rules (config/rules_file.h).
Rules default_rules();

// What one row of a table gives to a dim.
struct Assignment {
  std::string dim;
  std::string axis;
  int64_t size;
  int64_t stride;
};

// Reads a table over a loop space: (dim, size) in order, where `may_shard[i]` is false for dims that an op needs whole, and the factors
// of axes in `taken` (their `dim` means nothing) are not given out. UserError when an axis does not divide a dim.
std::vector<Assignment> read_table(const RuleTable& table, const Mesh& mesh, const std::vector<std::pair<std::string, int64_t>>& dims,
                                   const std::vector<bool>& may_shard, const std::vector<Assignment>& taken = {});

}  // namespace mw
