// Rows of experts between ranks: which rank works on a row is decided by its expert, so how many rows go where only the run tells. A rank's
// own rows are sorted by expert already; what it receives is planned as `rows` rows, those beyond the run's count belong to no expert.
//
//   counts = expert_counts(expert_of_rows(indices), {...});    // how many rows everyone sends
//   sent   = expert_dispatch(rows, counts, {...});             // rows of this rank's experts, from every rank of the axes
//   back   = expert_return(sent, counts, {...}, num_rows);     // each row where it came from
#pragma once
#include <string>
#include <vector>

#include "ir/builder.h"

namespace mw {

struct ExpertExchange {
  std::vector<std::string> axes;  // as collectives name them; rank j of them has experts j * experts / parts and on
  int64_t parts = 1;
  int64_t experts = 1;  // of all ranks
  int64_t rows = 0;     // planned for each rank, together: a shard of this many
  int64_t counts = 0;   // elements of the value of expert_counts, likewise
};

Tensor expert_counts(Tensor row_experts, const ExpertExchange& exchange, Source source = Source::here());
Tensor expert_dispatch(Tensor rows, Tensor counts, const ExpertExchange& exchange, Source source = Source::here());
Tensor expert_return(Tensor rows, Tensor counts, const ExpertExchange& exchange, int64_t num_rows, Source source = Source::here());
// Of each row that dispatch gives the number of its expert among this rank's; experts / parts for rows of no expert.
Tensor dispatched_experts(Tensor counts, const ExpertExchange& exchange, Source source = Source::here());

}  // namespace mw
