#include "exec/cpu/arena.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "exec/cpu/peak.h"
#include "runner.h"

namespace mw {
namespace {

TEST(arena, is_aligned_zero_and_resident_only_where_touched) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  Arena arena(kBytes);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(arena.data()) % Arena::kBaseAlignment, 0u);
  EXPECT_EQ(arena.resident_bytes(), 0);
  std::memset(arena.at(Arena::kBaseAlignment), 1, Arena::kBaseAlignment);
  EXPECT(arena.resident_bytes() >= Arena::kBaseAlignment);
  EXPECT(arena.resident_bytes() <= 3 * Arena::kBaseAlignment);
  EXPECT(arena.data()[kBytes - 1] == std::byte{0});
  arena.discard();
  EXPECT_EQ(arena.resident_bytes(), 0);
  EXPECT_EQ(*static_cast<char*>(arena.at(Arena::kBaseAlignment)), 0);
}

TEST(arena, moves_and_may_be_empty) {
  Arena a(100), empty(0);
  std::byte* const data = a.data();
  Arena b(std::move(a));
  EXPECT(b.data() == data);
  EXPECT(a.data() == nullptr);
  empty = std::move(b);
  EXPECT(empty.data() == data);
  EXPECT_EQ(empty.bytes(), 100);
  EXPECT_EQ(Arena::aligned(65), 128);
}

TEST(arena, bad_offsets_and_sizes_are_errors) {
  Arena arena(1000);
  EXPECT_ERROR(InternalError, { arena.at(1024); }, "arena offset 1024 of 1000");
  EXPECT_ERROR(InternalError, { arena.at(8); }, "arena offset 8");
  EXPECT_ERROR(UserError, { Arena huge(int64_t{1} << 50); }, "refused an arena of 1125899906842624 bytes", "smaller batch");
}

TEST(peak, figures_are_positive) {
  ThreadPool pool(2);
  for (Isa isa : available_isas()) EXPECT(measure_fma_peak(isa, pool) > 1e9);
  EXPECT((measure_bf16_peak(available_isas().back(), pool) > 0) == (available_isas().back() >= Isa::kAvx512Bf16));
  EXPECT(measure_read_bandwidth(pool, int64_t{16} << 20) > 1e8);
}

TEST(peak, a_processor_that_is_held_for_a_while_does_not_lower_it) {
  const auto measured = [](std::vector<double> rates) {
    size_t runs = 0;
    return largest_of_short_runs([&] { return rates[std::min(runs++, rates.size() - 1)]; });
  };
  std::vector<double> late(12, 50.0), climbing;
  late.push_back(100);
  EXPECT_EQ(measured(late), 100.0);
  for (int i = 0; i < 60; ++i) climbing.push_back(100 + 2 * i);
  EXPECT_EQ(measured(climbing), 218.0);
  size_t runs = 0;
  largest_of_short_runs([&] { return 7.0 + 1e-3 * static_cast<double>(++runs % 3); });
  EXPECT(runs < 20);
  runs = 0;
  largest_of_short_runs([&] { return static_cast<double>(++runs); });  // it ends
  EXPECT(runs < 1000);
}

}  // namespace
}  // namespace mw
