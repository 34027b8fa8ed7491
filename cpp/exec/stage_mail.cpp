#include "exec/stage_mail.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/error.h"

namespace mw {
namespace {

constexpr int64_t kMostTags = int64_t{1} << 30;

std::byte* address_of(const Mail& mail, const Plan& plan, const RunRow& row, RankMemory& memory, int64_t& bytes) {
  const Buffer* at = find_buffer(plan.carried, mail.name);
  MW_CHECK(at, "'", mail.name, "' is sent between stages but not carried");
  bytes = at->type.bytes();
  return memory.carried.data() + at->offset_of(row.microbatch);
}

}  // namespace

StageMail::StageMail(const std::vector<Plan>& stages) {
  std::multiset<std::tuple<int32_t, int32_t, int32_t, std::string>> sent, expected;  // from, to, microbatch
  int64_t microbatches = 0;
  for (int32_t s = 0; s < std::ssize(stages); ++s) {
    const Plan& plan = stages[static_cast<size_t>(s)];
    for (const RunRow& row : plan.order) {
      const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
      microbatches = std::max<int64_t>(microbatches, row.microbatch + 1);
      for (const Mail& mail : piece.sends) sent.emplace(s, mail.stage, row.microbatch, mail.name);
      for (const Mail& mail : piece.receives) expected.emplace(mail.stage, s, row.microbatch, mail.name);
    }
  }
  MW_CHECK(sent == expected, "stages of a pipeline send ", sent.size(), " letters and expect ", expected.size(), ", not all the same");
  for (const auto& [from, to, microbatch, name] : sent) numbers_.emplace(name, 0);
  int64_t number = 0;
  for (auto& [name, n] : numbers_) n = number++;
  MW_CHECK(microbatches * number <= kMostTags, microbatches, " microbatches of ", number, " letters; expected at most ", kMostTags);
}

void StageMail::receive(Communicator& comm, const Group& stages, const Plan& plan, const RunRow& row, RankMemory& memory) const {
  int64_t bytes = 0;
  for (const Mail& mail : plan.pieces[static_cast<size_t>(row.piece)].receives) {
    std::byte* to = address_of(mail, plan, row, memory, bytes);
    comm.receive(stages.ranks[static_cast<size_t>(mail.stage)], tag(mail, row), to, bytes);
  }
}

void StageMail::send(Communicator& comm, const Group& stages, const Plan& plan, const RunRow& row, RankMemory& memory,
                     SentMail& sent) const {
  int64_t bytes = 0;
  for (const Mail& mail : plan.pieces[static_cast<size_t>(row.piece)].sends) {
    const std::byte* from = address_of(mail, plan, row, memory, bytes);
    comm.send(stages.ranks[static_cast<size_t>(mail.stage)], tag(mail, row), from, bytes);
    ++sent.letters;
    sent.bytes += bytes;
  }
}

}  // namespace mw
