// A pool of threads that share out the tiles of one region at a time. Nothing is allocated by run().
//
//   ThreadPool pool(4);                                   // the caller and three workers
//   pool.run(tiles, [&](int64_t tile, int worker) { work(tile, scratch[worker]); });
//
// Each thread has its share of the tiles, neighbours, always the same ones of as many: what it wrote in one region it finds in its own
// caches in the next, where tiles are numbered alike. Who is done takes from the ends of the others' shares, and the region ends when the
// tiles are done, not when every thread has arrived, so a worker that the system has put aside delays nobody. What a tile computes must
// depend on its index alone: then results are the same for every number of threads. Workers spin for about 200 us after a region, then
// sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

namespace mw {

// Processors that this process may run on.
int usable_processors();

class ThreadPool {
 public:
  // 0 means one thread per processor this process may run on. A pool of one starts no threads.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls f(tile, worker) once for each tile in [0, tiles), worker in [0, threads()). Two tiles that run at once have different
  // workers. An exception is rethrown here once the running tiles have ended (of several, that of the lowest tile); tiles not yet
  // begun are then skipped. Inside a tile of the same pool the loop runs inline, with the worker of that tile.
  template <typename F>
  void run(int64_t tiles, F&& f) {
    using Body = std::remove_reference_t<F>;
    run_tiles(
        tiles, [](void* body, int64_t tile, int worker) { (*static_cast<Body*>(body))(tile, worker); },
        const_cast<void*>(static_cast<const void*>(std::addressof(f))));
  }

 private:
  using TileFunction = void (*)(void* body, int64_t tile, int worker);

  // What nobody has claimed yet of a thread's share: the region's number, then the next group of tiles, then the end. While some remain the
  // region cannot end, so a successful exchange proves that function_, body_, total_ and group_ were those of this region.
  struct alignas(64) Share {
    std::atomic<uint64_t> word{0};
  };
  static constexpr int kGroupBits = 20;
  static constexpr uint64_t kGroupMask = (uint64_t{1} << kGroupBits) - 1;

  void run_tiles(int64_t tiles, TileFunction function, void* body);
  void work(int worker);                 // a worker's life
  void run_claims(int worker);           // takes tiles until none is left
  int64_t claim(int worker, int share);  // takes tiles of one share until none is left there; returns the groups done

  std::unique_ptr<Share[]> shares_;
  alignas(64) std::atomic<uint64_t> announced_{0};  // the region's number
  std::atomic<TileFunction> function_{nullptr};
  std::atomic<void*> body_{nullptr};
  std::atomic<int64_t> total_{0}, group_{1};  // tiles; tiles of a group
  alignas(64) std::atomic<int64_t> done_{0};  // groups
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};

  int threads_;
  std::mutex caller_mutex_;  // one region at a time
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  int64_t error_tile_ = 0;
  std::unique_ptr<std::thread[]> workers_;
};

}  // namespace mw
