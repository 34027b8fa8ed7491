// The checks that the harness runs on every case; each throws a Failure that says what differs.
#pragma once
#include "ops/harness.h"

namespace mw::testing {

void check_types(const OpCase& op_case);          // the type rule gives the results the case names, in f32 and bf16
void check_text(const OpCase& op_case);           // a Program of the op prints and parses back
void check_gradient(const OpCase& op_case);       // gradient rule against finite differences of the reference
void check_decomposition(const OpCase& op_case);  // reference against decomposition
void check_shards(const OpCase& op_case);         // each mapped or contracted dim in two halves against the whole

// A dim of the loop space that may be sharded; in a view, the old and the new name of the outermost of its bytes.
struct ShardedDim {
  std::vector<std::string> names;
  DimRole role;
  int64_t size = 0;
};
std::vector<ShardedDim> shardable_dims(const OpCase& op_case, bool even_only);

void check_error(const std::string& op, const OpErrorCase& error);

}  // namespace mw::testing
