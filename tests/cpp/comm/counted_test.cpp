#include "comm/counted.h"

#include <vector>

#include "comm/threads.h"
#include "runner.h"

namespace mw {
namespace {

TEST(counted, bytes_that_a_rank_sends_around_a_ring) {
  ThreadWorld world(4);
  world.run([&](Communicator& comm) {
    CountedCommunicator counted(comm);
    const Group group = make_group(Mesh({{"data", 4}}), comm.rank(), {{"data", 1, 4}});
    std::vector<float> in(16, 1.0f), out(64);
    double before = 0;
    const auto sent = [&] {
      const double bytes = counted.bytes_sent() - before;
      before = counted.bytes_sent();
      return bytes;
    };
    counted.all_gather(group, in.data(), out.data(), 40);
    EXPECT_EQ(sent(), 120.0);
    counted.reduce_scatter(group, DType::kF32, in.data(), out.data(), 4);
    EXPECT_EQ(sent(), 48.0);
    counted.all_reduce(group, DType::kF32, ReduceKind::kSum, in.data(), out.data(), 10);
    EXPECT_EQ(sent(), 60.0);
    EXPECT_EQ(out[9], 4.0f);
    const auto started = counted.start_all_reduce(group, DType::kF32, ReduceKind::kSum, in.data(), out.data() + 10, 10);
    EXPECT_EQ(sent(), 60.0);
    started->finish();
    EXPECT_EQ(out[19], 4.0f);
    EXPECT_EQ(sent(), 0.0);
    counted.all_to_all(group, in.data(), out.data(), 8);
    EXPECT_EQ(sent(), 24.0);
    const std::vector<int64_t> bytes{4, 8, 12, 16};  // to each member; what stays here is not sent
    const std::vector<int64_t> from(4, bytes[static_cast<size_t>(comm.rank())]);
    counted.all_to_all_v(group, in.data(), bytes.data(), out.data(), from.data());
    EXPECT_EQ(sent(), 40.0 - static_cast<double>(from[0]));
    counted.shift(group, 1, in.data(), out.data(), 20);
    EXPECT_EQ(sent(), 20.0);
    counted.shift(group, 4, in.data(), out.data(), 20);
    EXPECT_EQ(sent(), 0.0);
    counted.send((comm.rank() + 1) % 4, 0, in.data(), 12);
    counted.receive((comm.rank() + 3) % 4, 0, out.data(), 12);
    EXPECT_EQ(sent(), 12.0);
    counted.start_all_gather(group, in.data(), out.data(), 40)->finish();
    EXPECT_EQ(sent(), 120.0);
    counted.start_reduce_scatter(group, DType::kF32, in.data(), out.data(), 4)->finish();
    EXPECT_EQ(sent(), 48.0);
    counted.start_all_reduce(group, DType::kF32, ReduceKind::kSum, in.data(), out.data(), 10)->finish();
    EXPECT_EQ(sent(), 60.0);
    counted.start_shift(group, 1, in.data(), out.data(), 20)->finish();
    EXPECT_EQ(sent(), 20.0);
    counted.barrier();
    EXPECT_EQ(sent(), 0.0);
  });
}

}  // namespace
}  // namespace mw
