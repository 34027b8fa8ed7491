#include "comm/threads.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/thread_pool.h"
#include "comm/combine.h"

namespace mw {
namespace {

// Thrown in the ranks that wait for one that failed; run() reports the failure itself.
struct OtherRankFailed : std::runtime_error {
  OtherRankFailed() : std::runtime_error("another rank of this process failed") {}
};

}  // namespace

class ThreadWorld::Rank : public Communicator {
 public:
  Rank(ThreadWorld& world, int64_t rank) : world_(world), rank_(rank) {
    everyone_.ranks = world.local_ranks();
    everyone_.index = rank;
  }
  int64_t rank() const override { return rank_; }
  int64_t size() const override { return world_.size(); }

  void barrier() override { world_.meet(world_.meeting_of(everyone_)); }

  void all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out, int64_t count) override {
    const std::vector<const void*>& buffers = post(group, in);
    if (in != out) {
      combine(dtype, kind, buffers, 0, out, count);
      leave();
      return;
    }
    scratch_.resize(static_cast<size_t>(count * dtype_bytes(dtype)));
    combine(dtype, kind, buffers, 0, scratch_.data(), count);
    leave();
    std::memcpy(out, scratch_.data(), scratch_.size());
  }

  void all_gather(const Group& group, const void* in, void* out, int64_t bytes) override {
    const std::vector<const void*>& buffers = post(group, in);
    for (size_t r = 0; r < buffers.size(); ++r)
      std::memcpy(static_cast<std::byte*>(out) + static_cast<int64_t>(r) * bytes, buffers[r], static_cast<size_t>(bytes));
    leave();
  }

  void reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override {
    combine(dtype, ReduceKind::kSum, post(group, in), group.index * count, out, count);
    leave();
  }

  void all_to_all(const Group& group, const void* in, void* out, int64_t bytes) override {
    const std::vector<const void*>& buffers = post(group, in);
    for (size_t r = 0; r < buffers.size(); ++r) {
      std::memcpy(static_cast<std::byte*>(out) + static_cast<int64_t>(r) * bytes,
                  static_cast<const std::byte*>(buffers[r]) + group.index * bytes, static_cast<size_t>(bytes));
    }
    leave();
  }

  void all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) override {
    const Blocks mine{static_cast<const std::byte*>(in), in_bytes};
    auto* to = static_cast<std::byte*>(out);
    const std::vector<const void*>& members = post(group, &mine);
    size_t r = 0;
    int64_t sent = 0;
    for (; r < members.size(); ++r) {
      const Blocks& from = *static_cast<const Blocks*>(members[r]);
      sent = from.bytes[group.index];
      if (sent != out_bytes[r]) break;
      if (sent == 0) continue;  // a member with nothing to send or receive may have no buffer
      std::memcpy(to, from.data + std::accumulate(from.bytes, from.bytes + group.index, int64_t{0}), static_cast<size_t>(sent));
      to += sent;
    }
    leave();  // before the error: others may still read `mine`
    MW_CHECK(r == members.size(), "member ", r, " sends ", sent, " bytes to member ", group.index, ", which expects ", out_bytes[r]);
  }

  void shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override {
    const int64_t n = group.size(), from = ((group.index - steps) % n + n) % n;
    std::memcpy(out, post(group, in)[static_cast<size_t>(from)], static_cast<size_t>(bytes));
    leave();
  }

  std::unique_ptr<Transfer> start_all_reduce(const Group& group, DType dtype, ReduceKind kind, const void* in, void* out,
                                             int64_t count) override {
    return start(group, in, {.out = out, .dtype = dtype, .kind = kind, .count = count});
  }

  std::unique_ptr<Transfer> start_all_gather(const Group& group, const void* in, void* out, int64_t bytes) override {
    return start(group, in, {.out = out, .bytes = bytes});
  }

  std::unique_ptr<Transfer> start_reduce_scatter(const Group& group, DType dtype, const void* in, void* out, int64_t count) override {
    return start(group, in, {.out = out, .dtype = dtype, .first = group.index * count, .count = count});
  }

  std::unique_ptr<Transfer> start_shift(const Group& group, int64_t steps, const void* in, void* out, int64_t bytes) override {
    const int64_t n = group.size(), from = ((group.index - steps) % n + n) % n;
    return start(group, in, {.out = out, .bytes = bytes, .source = from});
  }

  // Others need this rank to read their buffers too, so whatever can move on does.
  void finish(int64_t ticket) {
    for (;;) {
      progress();
      std::unique_lock lock(world_.mutex_);
      const auto found = std::find_if(under_way_.begin(), under_way_.end(), [&](const Half& half) { return half.ticket == ticket; });
      if (found == under_way_.end()) return;
      world_.changed_.wait(lock, [&] {
        return world_.aborted_ || found->flight->taken == found->lane_members() ||
               std::any_of(under_way_.begin(), under_way_.end(), [](const Half& half) { return half.may_take(); });
      });
      if (world_.aborted_) throw OtherRankFailed();
    }
  }

  void progress() override {
    if (under_way_.empty()) return;
    for (Half& half : under_way_) {
      {
        const std::lock_guard lock(world_.mutex_);
        if (!half.may_take()) continue;
      }
      take(half);
      const std::lock_guard lock(world_.mutex_);
      half.taken = true;
      ++half.flight->taken;
      world_.changed_.notify_all();
    }
    const std::lock_guard lock(world_.mutex_);
    std::erase_if(under_way_, [](Half& half) { return half.end(); });
  }

  // After an aborted run.
  void forget() { under_way_.clear(); }

  void send(int64_t to, int64_t tag, const void* data, int64_t bytes) override { world_.post({rank_, to, tag}, data, bytes); }
  void receive(int64_t from, int64_t tag, void* data, int64_t bytes) override { world_.collect({from, rank_, tag}, data, bytes); }

 private:
  struct Blocks {
    const std::byte* data;
    const int64_t* bytes;
  };

  class Started : public Transfer {
   public:
    Started(Rank& rank, int64_t ticket) : rank_(rank), ticket_(ticket) {}
    void finish() override { rank_.finish(ticket_); }

   private:
    Rank& rank_;
    int64_t ticket_;
  };

  // This rank's part of a collective that it has started.
  struct Half {
    void* out;
    int64_t bytes = 0;    // what is copied from each member, or from `source` alone
    int64_t source = -1;  // of a shift
    DType dtype = DType::kF32;
    ReduceKind kind = ReduceKind::kSum;
    int64_t first = 0, count = 0;  // of a reduction
    std::vector<std::byte> sum{};  // of a reduction in place: others read what lies there until the end
    int64_t ticket = -1;
    Lane* lane = nullptr;
    Flight* flight = nullptr;
    bool taken = false;

    int64_t lane_members() const { return static_cast<int64_t>(flight->buffers.size()); }
    bool may_take() const { return !taken && flight->arrived == lane_members(); }
    // Through when everyone has read this rank's buffer.
    bool end() {
      if (flight->taken != lane_members()) return false;
      if (!sum.empty()) std::memcpy(out, sum.data(), sum.size());
      ++flight->ended;
      while (!lane->flights.empty() && lane->flights.front().ended == static_cast<int64_t>(lane->started.size())) {
        lane->flights.pop_front();
        ++lane->first;
      }
      return true;
    }
  };

  std::unique_ptr<Transfer> start(const Group& group, const void* in, Half half) {
    {
      const std::lock_guard lock(world_.mutex_);
      if (world_.aborted_) throw OtherRankFailed();
      half.lane = &world_.lanes_[group.ranks];
      half.lane->started.resize(static_cast<size_t>(group.size()));
      const uint64_t number = half.lane->started[static_cast<size_t>(group.index)]++;
      while (half.lane->flights.size() <= number - half.lane->first)
        half.lane->flights.emplace_back().buffers.resize(static_cast<size_t>(group.size()));
      half.flight = &half.lane->flights[number - half.lane->first];
      half.flight->buffers[static_cast<size_t>(group.index)] = in;
      ++half.flight->arrived;
      world_.changed_.notify_all();
    }
    if (in == half.out) half.sum.resize(static_cast<size_t>(half.count * dtype_bytes(half.dtype)));
    half.ticket = ++tickets_;
    under_way_.push_back(std::move(half));
    return std::make_unique<Started>(*this, tickets_);
  }

  static void take(Half& half) {
    const std::vector<const void*>& buffers = half.flight->buffers;
    if (half.count > 0)
      return combine(half.dtype, half.kind, buffers, half.first, half.sum.empty() ? half.out : half.sum.data(), half.count);
    const auto bytes = static_cast<size_t>(half.bytes);
    if (half.source >= 0) {
      std::memcpy(half.out, buffers[static_cast<size_t>(half.source)], bytes);
      return;
    }
    for (size_t r = 0; r < buffers.size(); ++r) std::memcpy(static_cast<std::byte*>(half.out) + r * bytes, buffers[r], bytes);
  }

  // Shows `in` to the group; returns everyone's once all have come.
  const std::vector<const void*>& post(const Group& group, const void* in) {
    meeting_ = &world_.meeting_of(group);
    meeting_->buffers[static_cast<size_t>(group.index)] = in;
    world_.meet(*meeting_);
    return meeting_->buffers;
  }
  void leave() { world_.meet(*meeting_); }  // nobody changes a buffer that another still reads

  ThreadWorld& world_;
  int64_t rank_;
  Group everyone_;
  Meeting* meeting_ = nullptr;
  std::vector<std::byte> scratch_;
  std::vector<Half> under_way_;  // in the order of their start
  int64_t tickets_ = 0;
};

// The threads of ranks 1 and up.
class ThreadWorld::Workers {
 public:
  explicit Workers(int64_t count) {
    for (int64_t r = 1; r <= count; ++r) threads_.emplace_back([this, r] { work(r); });
  }
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void start(const std::function<void(int64_t)>& body) {
    const std::lock_guard lock(mutex_);
    body_ = &body;
    ++generation_;
    running_ = static_cast<int64_t>(threads_.size());
    wake_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  void work(int64_t rank) {
    uint64_t seen = 0;
    for (;;) {
      const std::function<void(int64_t)>* body = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) return;
        seen = generation_;
        body = body_;
      }
      (*body)(rank);
      const std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  bool stopping_ = false;
  uint64_t generation_ = 0;
  int64_t running_ = 0;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::vector<std::thread> threads_;
};

ThreadWorld::ThreadWorld(int64_t size) {
  if (size < 1) throw UserError("a world of " + std::to_string(size) + " ranks; expected at least 1");
  ranks_.resize(static_cast<size_t>(size));
  everyone_.resize(static_cast<size_t>(size));
  std::iota(everyone_.begin(), everyone_.end(), int64_t{0});
  for (int64_t r = 0; r < size; ++r) ranks_[static_cast<size_t>(r)] = std::make_unique<Rank>(*this, r);
  workers_ = std::make_unique<Workers>(size - 1);
}

ThreadWorld::~ThreadWorld() = default;

Communicator& ThreadWorld::rank(int64_t r) { return *ranks_.at(static_cast<size_t>(r)); }

int ThreadWorld::processors_per_rank() const { return std::max(1, usable_processors() / static_cast<int>(size())); }

ThreadWorld::Meeting& ThreadWorld::meeting_of(const Group& group) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<Meeting>& meeting = meetings_[group.ranks];
  if (!meeting) {
    meeting = std::make_unique<Meeting>();
    meeting->members = group.size();
    meeting->buffers.resize(static_cast<size_t>(group.size()));
  }
  return *meeting;
}

void ThreadWorld::meet(Meeting& meeting) {
  std::unique_lock lock(mutex_);
  if (aborted_) throw OtherRankFailed();
  const uint64_t generation = meeting.generation;
  if (++meeting.arrived == meeting.members) {
    meeting.arrived = 0;
    ++meeting.generation;
    changed_.notify_all();
    return;
  }
  changed_.wait(lock, [&] { return aborted_ || meeting.generation != generation; });
  if (meeting.generation == generation) throw OtherRankFailed();
}

void ThreadWorld::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  changed_.notify_all();
}

void ThreadWorld::post(const Address& address, const void* data, int64_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  std::vector<std::byte> letter(from, from + bytes);
  const std::lock_guard lock(mutex_);
  letters_[address].push_back(std::move(letter));
  changed_.notify_all();
}

void ThreadWorld::collect(const Address& address, void* data, int64_t bytes) {
  std::unique_lock lock(mutex_);
  std::deque<std::vector<std::byte>>& queue = letters_[address];
  changed_.wait(lock, [&] { return aborted_ || !queue.empty(); });
  if (queue.empty()) throw OtherRankFailed();
  const std::vector<std::byte> letter = std::move(queue.front());
  queue.pop_front();
  lock.unlock();
  MW_CHECK(static_cast<int64_t>(letter.size()) == bytes, "rank ", address.to, " expects ", bytes, " bytes from rank ", address.from,
           ", which sent ", letter.size());
  std::memcpy(data, letter.data(), letter.size());
}

void ThreadWorld::run(const std::function<void(Communicator&)>& body) {
  std::mutex error_mutex;
  std::exception_ptr error;
  const std::function<void(int64_t)> guarded = [&](int64_t r) {
    try {
      body(rank(r));
    } catch (const OtherRankFailed&) {
    } catch (...) {
      {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
      abort();
    }
  };
  workers_->start(guarded);
  guarded(0);
  workers_->wait();
  // The meetings of an aborted run are half full: begin anew.
  aborted_ = false;
  if (error) {
    meetings_.clear();
    letters_.clear();
    lanes_.clear();
    for (const std::unique_ptr<Rank>& rank : ranks_) rank->forget();
    std::rethrow_exception(error);
  }
}

}  // namespace mw
