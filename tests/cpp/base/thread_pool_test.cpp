#include "base/thread_pool.h"

#include <set>
#include <vector>

#include "base/error.h"
#include "runner.h"

namespace mw {
namespace {

TEST(thread_pool, each_tile_runs_once) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t tiles : {0, 1, 2, 5, 64, 1000, 1'100'003}) {  // the last more than a share counts one by one
      std::vector<std::atomic<int>> counts(tiles);
      pool.run(tiles, [&](int64_t tile, int worker) {
        if (worker < 0 || worker >= threads) throw InternalError("worker out of range");
        counts[tile].fetch_add(1);
      });
      for (const auto& count : counts) EXPECT_EQ(count.load(), 1);
    }
  }
}

TEST(thread_pool, a_thread_that_is_held_up_leaves_its_share_to_the_others) {
  for (int threads : {2, 3}) {
    ThreadPool pool(threads);
    constexpr int64_t kTiles = 60;
    for (int64_t held : {int64_t{0}, kTiles / threads}) {  // the first tiles of two shares
      std::atomic<int64_t> others{0};
      bool all = false;
      pool.run(kTiles, [&](int64_t tile, int) {
        if (tile != held) {
          others.fetch_add(1);
          return;
        }
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (!(all = others.load() == kTiles - 1) && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      });
      EXPECT(all);
    }
  }
}

TEST(thread_pool, many_short_regions_and_sleeps) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int region = 0; region < 20000; ++region) {
    pool.run(region % 5, [&](int64_t tile, int) { sum.fetch_add(tile + 1); });
    if (region % 4000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // long enough for the workers to sleep
  }
  EXPECT_EQ(sum.load(), 4000 * (0 + 1 + 3 + 6 + 10));
}

TEST(thread_pool, rethrows_in_the_caller_and_lives_on) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    EXPECT_ERROR(
        UserError,
        {
          pool.run(100, [](int64_t tile, int) {
            if (tile == 17) throw UserError("tile seventeen");
          });
        },
        "seventeen");
    int64_t ran = 0;
    pool.run(1, [&](int64_t, int) { ++ran; });
    EXPECT_EQ(ran, 1);
  }
}

TEST(thread_pool, nested_run_is_inline) {
  ThreadPool pool(3), other(2);
  std::atomic<int> inner{0}, wrong{0}, crossed{0};
  pool.run(8, [&](int64_t, int worker) {
    const auto thread = std::this_thread::get_id();
    pool.run(4, [&](int64_t, int nested) {
      inner.fetch_add(1);
      if (nested != worker || std::this_thread::get_id() != thread) wrong.fetch_add(1);
    });
    other.run(2, [&](int64_t, int) { crossed.fetch_add(1); });
  });
  EXPECT_EQ(inner.load(), 32);
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(crossed.load(), 16);
}

TEST(thread_pool, two_callers_take_turns) {
  ThreadPool pool(2);
  std::atomic<int64_t> count{0};
  const auto call = [&] {
    for (int i = 0; i < 500; ++i) pool.run(7, [&](int64_t, int) { count.fetch_add(1); });
  };
  std::thread a(call), b(call);
  a.join();
  b.join();
  EXPECT_EQ(count.load(), 7000);
}

TEST(thread_pool, bad_size_is_an_error) {
  EXPECT_ERROR(UserError, { ThreadPool pool(-2); }, "1 to 4096", "-2");
}

}  // namespace
}  // namespace mw
