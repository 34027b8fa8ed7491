// Ranks as processes against ranks as threads: every collective on the same numbers must give the same bits. The first tests start this
// program again under mpirun with 2, 4 and 8 processes; the MPI_TESTs are what runs there.
#include "comm/mpi.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "comm/agreement.h"
#include "comm/threads.h"
#include "runner.h"

namespace mw {
namespace {

struct Outcome {
  int status;
  std::string text;
};

Outcome run_under_mpirun(int ranks, const std::string& arguments) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string as_root = geteuid() == 0 ? "--allow-run-as-root " : "";
  const std::string command =
      "mpirun " + as_root + "--oversubscribe -n " + std::to_string(ranks) + " '" + program + "' " + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  EXPECT(pipe != nullptr);
  Outcome outcome;
  std::array<char, 4096> buffer;
  while (const size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) outcome.text.append(buffer.data(), n);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

void expect_all_pass(int ranks) {
  const Outcome outcome = run_under_mpirun(ranks, "mpi.");
  int passed = 0;
  for (size_t at = 0; (at = outcome.text.find(" passed, 0 failed", at)) != std::string::npos; ++at) ++passed;
  if (outcome.status != 0 || passed != ranks)
    testing::fail(__FILE__, __LINE__, "mpirun -n " + std::to_string(ranks) + ":\n" + outcome.text);
}

SLOW_TEST(mpirun, two_processes) { expect_all_pass(2); }
SLOW_TEST(mpirun, four_processes) { expect_all_pass(4); }
SLOW_TEST(mpirun, eight_processes) { expect_all_pass(8); }

// The comparison itself: a rank whose numbers differ must make the run fail.
SLOW_TEST(mpirun, a_rank_that_fails_ends_the_run) {
  const Outcome outcome = run_under_mpirun(2, "broken_on_purpose");
  EXPECT(outcome.status != 0);
  EXPECT(outcome.text.find("rank 1 has other bits") != std::string::npos);
}

MpiWorld& process_world() {
  static MpiWorld* const world = [] {
    auto* made = new MpiWorld;
    std::atexit([] { process_world().finish(); });
    return made;
  }();
  return *world;
}

// Numbers of sizes so different that a sum in another order has other bits.
std::vector<std::byte> random_array(DType dtype, int64_t count, uint64_t seed) {
  std::vector<std::byte> data(static_cast<size_t>(count * dtype_bytes(dtype)));
  uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15;
  for (int64_t i = 0; i < count; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    const auto bits = static_cast<uint32_t>(state >> 20);
    const float number = std::bit_cast<float>((bits & 0x807fffff) | ((118 + (bits >> 24 & 15)) << 23));  // 2^-9 to 2^7
    if (dtype == DType::kF32) {
      std::memcpy(data.data() + 4 * i, &number, 4);
    } else if (dtype == DType::kBF16) {
      const BF16 rounded = to_bf16(number);
      std::memcpy(data.data() + 2 * i, &rounded, 2);
    } else {
      data[static_cast<size_t>(i)] = static_cast<std::byte>(bits);
    }
  }
  return data;
}

// `body` gives the bytes that a rank ends with; run by this process's rank over MPI and by all ranks as threads.
void expect_as_threads(const std::function<std::vector<std::byte>(Communicator&)>& body, const std::string& what) {
  MpiWorld& world = process_world();
  std::vector<std::byte> found, expected;
  world.run([&](Communicator& comm) { found = body(comm); });
  const int64_t me = world.local_ranks()[0];
  ThreadWorld threads(world.size());
  threads.run([&](Communicator& comm) {
    std::vector<std::byte> result = body(comm);
    if (comm.rank() == me) expected = std::move(result);
  });
  EXPECT(!expected.empty());
  if (found != expected) testing::fail(__FILE__, __LINE__, what + ": rank " + std::to_string(me) + " has other bits than as a thread");
}

// Meshes of this many ranks, with the groups that collectives on them name.
struct Case {
  Mesh mesh;
  std::vector<GroupPart> parts;
};
std::vector<Case> cases(int64_t n) {
  std::vector<Case> list{{Mesh({{"data", n}}), {{"data", 1, n}}}};
  if (n >= 4) {
    const Mesh two({{"data", 2}, {"fsdp", n / 2}});
    list.push_back({two, {{"data", 1, 2}}});
    list.push_back({two, {{"fsdp", 1, n / 2}}});
    list.push_back({two, {{"fsdp", 1, n / 2}, {"data", 1, 2}}});
    list.push_back({Mesh({{"tensor", n}}), {{"tensor", 2, n / 2}}});
  }
  return list;
}

constexpr std::array<int64_t, 5> kCounts{1, 17, 1000, 50003, 1200007};  // the last ones are sent piece by piece

template <typename Body>
void for_each_case(const Body& body) {
  const int64_t n = process_world().size();
  for (const Case& c : cases(n)) {
    for (const int64_t count : kCounts) {
      if (count > 1000000 && (n == 8 || c.parts.size() > 1 || c.parts[0].size < n)) continue;  // every process makes all ranks' numbers
      const std::string name = c.mesh.to_string() + ", " + std::to_string(count) + " elements";
      body(c, count, name);
    }
  }
}

MPI_TEST(mpi, all_reduce_has_the_bits_of_threads) {
  for_each_case([](const Case& c, int64_t count, const std::string& name) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const ReduceKind kind : {ReduceKind::kSum, ReduceKind::kMax}) {
        for (const bool in_place : {false, true}) {
          expect_as_threads(
              [&](Communicator& comm) {
                std::vector<std::byte> in = random_array(dtype, count, static_cast<uint64_t>(comm.rank())), out(in.size());
                comm.all_reduce(make_group(c.mesh, comm.rank(), c.parts), dtype, kind, in.data(), in_place ? in.data() : out.data(), count);
                return in_place ? in : out;
              },
              name);
        }
      }
    }
  });
}

MPI_TEST(mpi, reduce_scatter_has_the_bits_of_threads) {
  for_each_case([](const Case& c, int64_t count, const std::string& name) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      expect_as_threads(
          [&](Communicator& comm) {
            const Group group = make_group(c.mesh, comm.rank(), c.parts);
            const std::vector<std::byte> in = random_array(dtype, count * group.size(), static_cast<uint64_t>(comm.rank()));
            std::vector<std::byte> out(static_cast<size_t>(count * dtype_bytes(dtype)));
            comm.reduce_scatter(group, dtype, in.data(), out.data(), count);
            return out;
          },
          name);
    }
  });
}

MPI_TEST(mpi, moves_are_those_of_threads) {
  for_each_case([](const Case& c, int64_t bytes, const std::string& name) {
    expect_as_threads(
        [&](Communicator& comm) {
          const Group group = make_group(c.mesh, comm.rank(), c.parts);
          const int64_t n = group.size();
          const std::vector<std::byte> in = random_array(DType::kU8, bytes * n, static_cast<uint64_t>(comm.rank()) + 7);
          std::vector<std::byte> gathered(in.size()), turned(in.size()), shifted(in.size());
          comm.all_gather(group, in.data(), gathered.data(), bytes);
          comm.all_to_all(group, in.data(), turned.data(), bytes);
          comm.shift(group, -1, in.data(), shifted.data(), bytes * n);
          comm.barrier();
          gathered.insert(gathered.end(), turned.begin(), turned.end());
          gathered.insert(gathered.end(), shifted.begin(), shifted.end());
          return gathered;
        },
        name);
  });
}

// Several at once, over the group and over everyone, with waiting calls in between; each rank looks at its messages when it likes.
MPI_TEST(mpi, transfers_that_are_started_have_the_bits_of_threads) {
  for_each_case([](const Case& c, int64_t count, const std::string& name) {
    expect_as_threads(
        [&](Communicator& comm) {
          const Group group = make_group(c.mesh, comm.rank(), c.parts), world = everyone(comm);
          const auto seed = static_cast<uint64_t>(comm.rank());
          const std::vector<std::byte> a = random_array(DType::kF32, count, seed),
                                       b = random_array(DType::kBF16, count * group.size(), seed);
          std::vector<std::byte> in_place = random_array(DType::kF32, count, seed + 9);
          const auto result = [](int64_t bytes) { return std::vector<std::byte>(static_cast<size_t>(bytes)); };
          std::vector<std::byte> sum = result(4 * count), gathered = result(4 * count * group.size()), scattered = result(2 * count),
                                 between = result(4 * count), last = result(4 * count), shifted = result(4 * count);
          std::vector<std::unique_ptr<Transfer>> started;
          started.push_back(comm.start_all_reduce(world, DType::kF32, ReduceKind::kSum, a.data(), sum.data(), count));
          started.push_back(comm.start_reduce_scatter(group, DType::kBF16, b.data(), scattered.data(), count));
          started.push_back(comm.start_all_gather(group, a.data(), gathered.data(), 4 * count));
          started.push_back(comm.start_all_reduce(group, DType::kF32, ReduceKind::kSum, in_place.data(), in_place.data(), count));
          const std::unique_ptr<Transfer> turning = comm.start_shift(group, -1, a.data(), shifted.data(), 4 * count);
          for (int64_t i = 0; i < 3 * comm.rank(); ++i) comm.progress();
          comm.all_reduce(group, DType::kF32, ReduceKind::kSum, a.data(), between.data(), count);
          started[1]->finish();
          started.push_back(comm.start_all_reduce(world, DType::kF32, ReduceKind::kSum, between.data(), last.data(), count));
          comm.barrier();
          for (const size_t i : {0, 2, 4, 3}) started[i]->finish();
          turning->finish();
          for (const auto& more : {gathered, scattered, between, last, in_place, shifted}) sum.insert(sum.end(), more.begin(), more.end());
          return sum;
        },
        name);
  });
}

MPI_TEST(mpi, blocks_of_any_sizes_arrive) {
  for_each_case([](const Case& c, int64_t scale, const std::string& name) {
    expect_as_threads(
        [&](Communicator& comm) {
          const Group group = make_group(c.mesh, comm.rank(), c.parts);
          const auto size = [&](int64_t from, int64_t to) { return (from * 3 + to * 5) % 4 * scale; };  // some are empty
          std::vector<int64_t> in_bytes, out_bytes;
          for (int64_t member = 0; member < group.size(); ++member) {
            in_bytes.push_back(size(group.index, member));
            out_bytes.push_back(size(member, group.index));
          }
          const int64_t sent = std::accumulate(in_bytes.begin(), in_bytes.end(), int64_t{0});
          const std::vector<std::byte> in = random_array(DType::kU8, sent, static_cast<uint64_t>(comm.rank()) + 11);
          std::vector<std::byte> out(static_cast<size_t>(std::accumulate(out_bytes.begin(), out_bytes.end(), int64_t{0})));
          comm.all_to_all_v(group, in.data(), in_bytes.data(), out.data(), out_bytes.data());
          out.push_back(std::byte{1});  // never empty
          return out;
        },
        name);
  });
}

// Every rank sends before any receives, letters large and small, and takes them tag by tag in another order.
MPI_TEST(mpi, letters_of_one_tag_arrive_in_order) {
  for (const int64_t bytes : {int64_t{0}, int64_t{8}, int64_t{3} << 20}) {
    expect_as_threads(
        [&](Communicator& comm) {
          const int64_t n = comm.size(), to = (comm.rank() + 1) % n, from = (comm.rank() + n - 1) % n;
          for (const int64_t tag : {0, 7}) {
            for (int64_t i = 0; i < 3; ++i) {
              const std::vector<std::byte> letter =
                  random_array(DType::kU8, bytes, static_cast<uint64_t>(100 * comm.rank() + 10 * tag + i));
              comm.send(to, tag, letter.data(), bytes);
            }
          }
          comm.progress();
          std::vector<std::byte> all(static_cast<size_t>(6 * bytes) + 1);
          int64_t place = 0;
          for (const int64_t tag : {7, 0}) {
            for (int64_t i = 0; i < 3; ++i) comm.receive(from, tag, all.data() + place++ * bytes, bytes);
          }
          return all;
        },
        std::to_string(bytes) + " bytes");
  }
}

MPI_TEST(mpi, a_letter_of_another_size_is_an_error) {
  process_world().run([](Communicator& comm) {
    const int64_t n = comm.size(), letter = 5;
    comm.send((comm.rank() + 1) % n, 3, &letter, sizeof letter);
    std::array<std::byte, 16> data;
    EXPECT_ERROR(InternalError, { comm.receive((comm.rank() + n - 1) % n, 3, data.data(), 16); }, "expects 16 bytes", "which sent 8");
    comm.receive((comm.rank() + n - 1) % n, 3, data.data(), 8);
  });
}

MPI_TEST(mpi, ranks_that_disagree_are_named) {
  MpiWorld& world = process_world();
  auto& comm = world.rank(world.local_ranks()[0]);
  const Group everyone = make_group(Mesh({{"data", comm.size()}}), comm.rank(), {{"data", 1, comm.size()}});
  EXPECT_ERROR(
      UserError, { check_agreement(comm, everyone, {{"lr", comm.rank() == 1 ? "2" : "1"}}, "differ"); }, "lr: 1 on rank 0, 2 on rank 1");
}

MPI_TEST(mpi, world_is_that_of_mpirun) {
  MpiWorld& world = process_world();
  EXPECT_EQ(world.size(), int64_t{mpirun_size()});
  EXPECT_EQ(world.local_ranks()[0], int64_t{mpirun_rank()});
  EXPECT(world.is_shared());
  EXPECT(world.processors_per_rank() >= 1);
  EXPECT(world.library().version.find("Open MPI") != std::string::npos);
  EXPECT_ERROR(InternalError, { world.rank(world.local_ranks()[0] + 1); }, "another process");
}

MPI_TEST(broken_on_purpose, one_rank_adds_something_else) {
  expect_as_threads(
      [&](Communicator& comm) {
        const Group everyone = make_group(Mesh({{"data", comm.size()}}), comm.rank(), {{"data", 1, comm.size()}});
        float sum = 1;
        comm.all_reduce(everyone, DType::kF32, ReduceKind::kSum, &sum, &sum, 1);
        if (comm.rank() == 1 && &comm == &process_world().rank(process_world().local_ranks()[0])) sum += 1;
        std::vector<std::byte> bytes(sizeof sum);
        std::memcpy(bytes.data(), &sum, sizeof sum);
        return bytes;
      },
      "spoiled");
}

}  // namespace
}  // namespace mw
