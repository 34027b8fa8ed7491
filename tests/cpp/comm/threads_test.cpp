#include "comm/threads.h"

#include <numeric>
#include <vector>

#include "base/error.h"
#include "runner.h"

namespace mw {
namespace {

TEST(threads, all_to_all_v_moves_blocks_of_any_sizes) {
  constexpr int64_t n = 4;
  ThreadWorld world(n);
  world.run([&](Communicator& comm) {
    // Rank i sends i + 2 j bytes to rank j, each of the value 10 i + j.
    std::vector<std::byte> in;
    std::vector<int64_t> in_bytes, out_bytes;
    for (int64_t j = 0; j < n; ++j) {
      in_bytes.push_back(comm.rank() + 2 * j);
      in.insert(in.end(), static_cast<size_t>(in_bytes.back()), static_cast<std::byte>(10 * comm.rank() + j));
      out_bytes.push_back(j + 2 * comm.rank());
    }
    std::vector<std::byte> out(static_cast<size_t>(std::accumulate(out_bytes.begin(), out_bytes.end(), int64_t{0}))), expected;
    comm.all_to_all_v(everyone(comm), in.data(), in_bytes.data(), out.data(), out_bytes.data());
    for (int64_t i = 0; i < n; ++i)
      expected.insert(expected.end(), static_cast<size_t>(i + 2 * comm.rank()), static_cast<std::byte>(10 * i + comm.rank()));
    EXPECT(out == expected);
  });
}

TEST(threads, all_to_all_v_with_sizes_that_disagree_is_an_error) {
  ThreadWorld world(2);
  const auto run = [&] {
    world.run([&](Communicator& comm) {
      const std::vector<int64_t> in_bytes{1, 1}, out_bytes{1, comm.rank() == 0 ? 2 : 1};
      std::vector<std::byte> in(2), out(3);
      comm.all_to_all_v(everyone(comm), in.data(), in_bytes.data(), out.data(), out_bytes.data());
    });
  };
  EXPECT_ERROR(InternalError, { run(); }, "which expects 2");
}

TEST(threads, shift_goes_around_the_ring_both_ways) {
  ThreadWorld world(3);
  world.run([&](Communicator& comm) {
    for (const int64_t steps : {1, -1, 2, 4}) {
      const int64_t mine = comm.rank();
      int64_t got = -1;
      comm.shift(everyone(comm), steps, &mine, &got, sizeof mine);
      EXPECT_EQ(got, ((comm.rank() - steps) % 3 + 3) % 3);
    }
  });
}

TEST(threads, letters_of_one_tag_arrive_in_order) {
  ThreadWorld world(2);
  world.run([&](Communicator& comm) {
    if (comm.rank() == 0) {
      for (const int64_t tag : {7, 8}) {
        for (int64_t i = 0; i < 3; ++i) {
          const int64_t letter = 100 * tag + i;
          comm.send(1, tag, &letter, sizeof letter);
        }
      }
      return;
    }
    for (const int64_t tag : {8, 7}) {
      for (int64_t i = 0; i < 3; ++i) {
        int64_t letter = -1;
        comm.receive(0, tag, &letter, sizeof letter);
        EXPECT_EQ(letter, 100 * tag + i);
      }
    }
  });
}

TEST(threads, a_rank_that_fails_frees_those_that_wait_for_its_letter) {
  ThreadWorld world(2);
  const auto run = [&] {
    world.run([&](Communicator& comm) {
      int64_t letter = 0;
      if (comm.rank() == 0) throw UserError("rank 0 had enough");
      comm.receive(0, 1, &letter, sizeof letter);
    });
  };
  for (int i = 0; i < 2; ++i) EXPECT_ERROR(UserError, { run(); }, "had enough");
}

}  // namespace
}  // namespace mw
