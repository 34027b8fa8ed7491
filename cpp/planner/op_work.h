// What one op of a partitioned Program does: FLOPs, bytes of memory, bytes sent. Rows of experts count as if every expert were chosen
// equally often, however much room is planned for them.
#pragma once
#include <string>
#include <string_view>

#include "ir/plan.h"

namespace mw {

// The rows that a layer's ops really work on, of those that are planned.
double share_of_expert_rows(const Program& program, const Op& op, const ExpertRowsPlanned& rows);

Cost usual_cost(const Program& program, const Op& op, const ExpertRowsPlanned& rows);

// Bytes that each of `ranks` sends when a collective gives `given` bytes per rank and goes around a ring: all_gather (n-1) given,
// reduce_scatter and all_to_all (n-1)/n given, all_reduce 2 (n-1)/n given.
double ring_bytes(std::string_view op, int64_t given, int64_t ranks);

struct BytesSent {
  double usual = 0;
  double most = 0;  // rows of experts: what the room for them allows
};

// By one rank.
BytesSent bytes_sent(const Program& program, const Op& op);

// Matrix products, the fused ones of attention and loss among them: what a chip has units for.
bool is_product_with_weights(std::string_view op);
// The dtype whose peak rate bounds them, "float32" or "bfloat16"; "" for other ops.
std::string product_dtype(const Program& program, const Op& op);

std::string axes_text(const Op& op);  // "fsdp", "data+fsdp"
int64_t ranks_of(const Op& op);

}  // namespace mw
