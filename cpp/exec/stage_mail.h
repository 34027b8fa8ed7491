// Mail of a pipeline: the carried values that ranks of one stage send to the same ranks of another one.
//
//   const StageMail mail(stages);
//   mail.receive(comm, ranks_of_all_stages, plan, row, memory);   // before a piece runs
//   mail.send(comm, ranks_of_all_stages, plan, row, memory);      // when it has
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "exec/memory.h"
#include "ir/plan.h"

namespace mw {

// By one rank.
struct SentMail {
  int64_t letters = 0, bytes = 0;
};

class StageMail {
 public:
  StageMail() = default;
  // Plans of all stages: ranks number what is sent alike. InternalError for a letter that the other stage does not expect.
  explicit StageMail(const std::vector<Plan>& stages);

  // Both move the letters of the piece of `row`, in and out of the copies of its microbatch. `stages`: this rank among the same ranks
  // of all stages. `sent` is added to.
  void receive(Communicator& comm, const Group& stages, const Plan& plan, const RunRow& row, RankMemory& memory) const;
  void send(Communicator& comm, const Group& stages, const Plan& plan, const RunRow& row, RankMemory& memory, SentMail& sent) const;

 private:
  int64_t tag(const Mail& mail, const RunRow& row) const { return row.microbatch * std::ssize(numbers_) + numbers_.at(mail.name); }

  std::map<std::string, int64_t> numbers_;  // by name of a value
};

}  // namespace mw
