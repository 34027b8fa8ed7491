// The exchange of expert rows between ranks: every row goes to the rank of its expert, lies there by expert, and comes back where it was.
// A run that needs more than the bound sends nothing and says so.
#include <algorithm>
#include <cstring>
#include <random>

#include "comm/threads.h"
#include "exec/cpu/expert_exchange_kernels.h"
#include "ops/ops.h"
#include "ops/registry.h"
#include "runner.h"

namespace mw::testing {
namespace {

constexpr int64_t kParts = 4, kExperts = 8, kRows = 12, kWidth = 5;

struct Numbers {
  Type type;
  std::vector<int32_t> data;
};

// One rank's op; the bits of the numbers do not matter to it.
class Runner {
 public:
  Runner(Communicator& comm, cpu::ExpertLoad& load) : comm_(comm), load_(load), pool_(1) {
    group_ = make_group(Mesh({{"expert", kParts}}), comm.rank(), {{"expert", 1, kParts}});
  }

  Numbers run(std::string_view op, const std::vector<const Numbers*>& operands, int64_t rows) {
    Attributes attributes{{"axes", std::vector<std::string>{"expert:1:4"}}, {"experts", kExperts}, {"parts", kParts}, {"rows", rows}};
    if (op == "expert_counts") attributes.set("counts", 2 * kExperts);
    Signature signature{.operands = {}, .results = {}, .attributes = &attributes};
    std::vector<const std::byte*> in;
    for (const Numbers* operand : operands) {
      signature.operands.push_back(&operand->type);
      in.push_back(reinterpret_cast<const std::byte*>(operand->data.data()));
    }
    const OpDef& def = *find_op(op);
    Numbers result{infer_types(def, signature).at(0), {}};
    signature.results.push_back(&result.type);
    result.data.assign(static_cast<size_t>(result.type.elements()), -77);
    const cpu::Kernel kernel = cpu::make_expert_exchange(def, signature, group_, comm_, load_);
    EXPECT_EQ(kernel.workspace_bytes, cpu::expert_exchange_workspace_bytes(def, signature));
    std::vector<int64_t> workspace(static_cast<size_t>(kernel.workspace_bytes / 8 + 1));
    std::byte* out = reinterpret_cast<std::byte*>(result.data.data());
    kernel.run({in.data(), &out, reinterpret_cast<std::byte*>(workspace.data()), pool_});
    return result;
  }

 private:
  Communicator& comm_;
  cpu::ExpertLoad& load_;
  Group group_;
  ThreadPool pool_;
};

// Ascending experts below `most` of one rank.
Numbers choose(int64_t rank, int32_t most) {
  std::mt19937 random(static_cast<uint32_t>(rank + 1));
  Numbers experts{{DType::kI32, {{"expert_rows", kRows}}}, {}};
  for (int64_t row = 0; row < kRows; ++row) experts.data.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(most)));
  std::sort(experts.data.begin(), experts.data.end());
  return experts;
}

// Each number says of which rank, row and expert it is.
Numbers rows_of(int64_t rank, const Numbers& experts) {
  Numbers rows{{DType::kI32, {{"expert_rows", kRows}, {"embed", kWidth}}}, {}};
  for (size_t i = 0; i < static_cast<size_t>(kRows * kWidth); ++i)
    rows.data.push_back(static_cast<int32_t>(rank * 10000 + experts.data[i / kWidth] * 100 + static_cast<int64_t>(i) + 1));
  return rows;
}

}  // namespace

TEST(exec_cpu, rows_go_to_the_ranks_of_their_experts_and_back) {
  ThreadWorld world(kParts);
  world.run([&](Communicator& comm) {
    cpu::ExpertLoad load;
    Runner ranks(comm, load);
    const int64_t rank = comm.rank(), bound = kParts * kRows, own = kExperts / kParts;
    const Numbers experts = choose(rank, kExperts), rows = rows_of(rank, experts);
    const Numbers counts = ranks.run("expert_counts", {&experts}, bound);
    const Numbers sent = ranks.run("expert_dispatch", {&rows, &counts}, bound), whose = ranks.run("dispatched_experts", {&counts}, bound);
    // By looking at every row of every rank, expert by expert.
    std::vector<int32_t> expected, expected_whose;
    int64_t most = 0;
    for (int64_t to = 0; to < kParts; ++to) {
      int64_t here = 0;
      for (int64_t e = 0; e < own; ++e) {
        for (int64_t from = 0; from < kParts; ++from) {
          const Numbers theirs = choose(from, kExperts), values = rows_of(from, theirs);
          for (int64_t r = 0; r < kRows; ++r) {
            if (theirs.data[static_cast<size_t>(r)] != to * own + e) continue;
            ++here;
            if (to != rank) continue;
            expected.insert(expected.end(), values.data.begin() + r * kWidth, values.data.begin() + (r + 1) * kWidth);
            expected_whose.push_back(static_cast<int32_t>(e));
          }
        }
      }
      most = std::max(most, here);
    }
    expected.resize(static_cast<size_t>(bound * kWidth), 0);
    expected_whose.resize(static_cast<size_t>(bound), static_cast<int32_t>(own));
    EXPECT(sent.data == expected);
    EXPECT(whose.data == expected_whose);
    EXPECT(ranks.run("expert_return", {&sent, &counts}, kRows).data == rows.data);
    EXPECT(!load.too_many);
    EXPECT_EQ(load.most, static_cast<double>(most) / kRows);
  });
}

TEST(exec_cpu, rows_that_have_no_room_are_not_sent) {
  ThreadWorld world(kParts);
  world.run([&](Communicator& comm) {
    cpu::ExpertLoad load;
    Runner ranks(comm, load);
    const int64_t bound = 2 * kRows;
    const Numbers experts = choose(comm.rank(), 2), rows = rows_of(comm.rank(), experts);  // all for the first rank
    const Numbers counts = ranks.run("expert_counts", {&experts}, bound);
    EXPECT(load.too_many);
    EXPECT_EQ(load.most, 4.0);
    const Numbers sent = ranks.run("expert_dispatch", {&rows, &counts}, bound);
    EXPECT(sent.data == std::vector<int32_t>(static_cast<size_t>(bound * kWidth), 0));
    EXPECT(ranks.run("dispatched_experts", {&counts}, bound).data == std::vector<int32_t>(static_cast<size_t>(bound), 2));
    EXPECT(ranks.run("expert_return", {&sent, &counts}, kRows).data == std::vector<int32_t>(static_cast<size_t>(kRows * kWidth), 0));
    // Exactly enough.
    cpu::ExpertLoad fits;
    EXPECT(Runner(comm, fits).run("expert_counts", {&experts}, 4 * kRows).data[0] >= 0 && !fits.too_many);
  });
}

}  // namespace mw::testing
