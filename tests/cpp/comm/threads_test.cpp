#include "comm/threads.h"

#include <array>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>
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

// Under way together, over one group and over another, with blocking calls among them and ended in another order: the bits of blocking
// calls.
TEST(threads, started_collectives_give_what_blocking_ones_give) {
  constexpr int64_t n = 4, count = 5000;
  const Mesh mesh({{"data", 2}, {"tensor", 2}});
  ThreadWorld world(n);
  for (int round = 0; round < 3; ++round) {
    world.run([&](Communicator& comm) {
      const Group pair = make_group(mesh, comm.rank(), {{"tensor", 1, 2}}), all = everyone(comm);
      std::vector<float> in(count * n);
      for (size_t i = 0; i < in.size(); ++i)
        in[i] = 1.0f / static_cast<float>(1 + (static_cast<size_t>(comm.rank()) * 7919 + i * 31 + static_cast<size_t>(round)) % 1013);
      const int64_t bytes = count * static_cast<int64_t>(sizeof(float));
      const auto results = [&](bool started) {
        std::vector<float> gathered(in.size()), scattered(count), reduced(count), shifted(count), more(count);
        if (started) {
          std::array<std::unique_ptr<Transfer>, 4> transfers{
              comm.start_all_gather(all, in.data(), gathered.data(), bytes),
              comm.start_reduce_scatter(all, DType::kF32, in.data(), scattered.data(), count),
              comm.start_all_reduce(pair, DType::kF32, ReduceKind::kSum, in.data(), reduced.data(), count),
              comm.start_shift(all, -1, in.data(), shifted.data(), bytes)};
          comm.all_reduce(all, DType::kF32, ReduceKind::kMax, in.data(), more.data(), count);
          for (int64_t i = 0; i < comm.rank(); ++i) comm.progress();
          for (const size_t t : {2, 0, 3, 1}) transfers[t]->finish();
        } else {
          comm.all_gather(all, in.data(), gathered.data(), bytes);
          comm.reduce_scatter(all, DType::kF32, in.data(), scattered.data(), count);
          comm.all_reduce(pair, DType::kF32, ReduceKind::kSum, in.data(), reduced.data(), count);
          comm.shift(all, -1, in.data(), shifted.data(), bytes);
          comm.all_reduce(all, DType::kF32, ReduceKind::kMax, in.data(), more.data(), count);
        }
        for (const auto* part : {&scattered, &reduced, &shifted, &more}) gathered.insert(gathered.end(), part->begin(), part->end());
        return gathered;
      };
      EXPECT(results(true) == results(false));
    });
  }
}

// A rank that is done overwrites what it gave, which one that comes late has not read before its own `finish`.
TEST(threads, sums_in_place_are_of_what_was_given) {
  ThreadWorld world(3);
  world.run([&](Communicator& comm) {
    for (int round = 0; round < 30; ++round) {
      std::vector<float> numbers(1000, static_cast<float>(comm.rank() + 10 * round));
      const std::unique_ptr<Transfer> sum =
          comm.start_all_reduce(everyone(comm), DType::kF32, ReduceKind::kSum, numbers.data(), numbers.data(), 1000);
      if (comm.rank() == round % 3) std::this_thread::sleep_for(std::chrono::microseconds(500));
      for (int i = 0; i < comm.rank(); ++i) comm.progress();
      sum->finish();
      EXPECT(numbers == std::vector<float>(1000, static_cast<float>(3 + 30 * round)));
    }
  });
}

TEST(threads, a_rank_that_fails_frees_those_that_finish) {
  ThreadWorld world(2);
  const auto run = [&](bool fails) {
    world.run([&](Communicator& comm) {
      const int64_t mine = comm.rank();
      std::vector<int64_t> both(2);
      const std::unique_ptr<Transfer> transfer = comm.start_all_gather(everyone(comm), &mine, both.data(), sizeof mine);
      if (fails && comm.rank() == 1) throw UserError("rank 1 had enough");
      transfer->finish();
      EXPECT((both == std::vector<int64_t>{0, 1}));
    });
  };
  EXPECT_ERROR(UserError, { run(true); }, "rank 1 had enough");
  run(false);  // nothing of the failed run is left
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
