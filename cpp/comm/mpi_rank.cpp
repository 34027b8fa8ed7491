#include "comm/mpi_rank.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "comm/mpi_transfer.h"

namespace mw {
namespace {

constexpr int kTag = 1;
constexpr int kGoodbye = (1 << 30) + 1;              // the tag above those of letters
constexpr int64_t kMessageBytes = int64_t{1} << 30;  // MPI counts in 32 bits
constexpr int64_t kSmallBytes = int64_t{16} << 10;   // up to here everyone gets everything: one exchange instead of two

std::byte* at(void* data, int64_t bytes) { return static_cast<std::byte*>(data) + bytes; }
const std::byte* at(const void* data, int64_t bytes) { return static_cast<const std::byte*>(data) + bytes; }
size_t index(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

MpiRank::MpiRank(const MpiLibrary& mpi) : mpi_(mpi) {
  check(mpi_.comm_set_errhandler(mpi_.comm_world, mpi_.errors_return), "MPI_Comm_set_errhandler");
  int rank = 0, size = 0;
  check(mpi_.comm_rank(mpi_.comm_world, &rank), "MPI_Comm_rank");
  check(mpi_.comm_size(mpi_.comm_world, &size), "MPI_Comm_size");
  everyone_.ranks.resize(index(size));
  std::iota(everyone_.ranks.begin(), everyone_.ranks.end(), int64_t{0});
  everyone_.index = rank;
  check(mpi_.comm_dup(mpi_.comm_world, &letters_comm_), "MPI_Comm_dup");
}

void MpiRank::check(int status, const char* call) const {
  if (status == MpiLibrary::kSuccess) return;
  std::array<char, MpiLibrary::kMaxText> text{};
  int length = 0;
  mpi_.error_string(status, text.data(), &length);
  throw InternalError(concat_text("rank ", rank(), ": ", call, " failed: ", text.data()));
}

MpiLibrary::Comm MpiRank::comm_of(const Group& group) { return channel_of(group).comm; }

MpiRank::Channel& MpiRank::channel_of(const Group& group) {
  const auto found = channels_.find(group.ranks);
  if (found != channels_.end()) return found->second;
  const std::vector<int> ranks(group.ranks.begin(), group.ranks.end());
  MpiLibrary::Group all = nullptr, members = nullptr;
  MpiLibrary::Comm comm = nullptr;
  check(mpi_.comm_group(mpi_.comm_world, &all), "MPI_Comm_group");
  check(mpi_.group_incl(all, static_cast<int>(ranks.size()), ranks.data(), &members), "MPI_Group_incl");
  check(mpi_.comm_create_group(mpi_.comm_world, members, kTag, &comm), "MPI_Comm_create_group");
  check(mpi_.comm_set_errhandler(comm, mpi_.errors_return), "MPI_Comm_set_errhandler");
  mpi_.group_free(&members);
  mpi_.group_free(&all);
  return channels_[group.ranks] = {comm};
}

void MpiRank::start_send(MpiLibrary::Comm comm, int64_t to, int tag, const void* data, int64_t bytes, Requests& requests) {
  for (int64_t first = 0; first < bytes; first += kMessageBytes) {
    const auto count = static_cast<int>(std::min(kMessageBytes, bytes - first));
    check(mpi_.isend(at(data, first), count, mpi_.byte, static_cast<int>(to), tag, comm, &requests.emplace_back()), "MPI_Isend");
  }
}

void MpiRank::start_receive(MpiLibrary::Comm comm, int64_t from, int tag, void* data, int64_t bytes, Requests& requests) {
  for (int64_t first = 0; first < bytes; first += kMessageBytes) {
    const auto count = static_cast<int>(std::min(kMessageBytes, bytes - first));
    check(mpi_.irecv(at(data, first), count, mpi_.byte, static_cast<int>(from), tag, comm, &requests.emplace_back()), "MPI_Irecv");
  }
}

bool MpiRank::is_done(Requests& requests) {
  int done = 0;
  check(mpi_.testall(static_cast<int>(requests.size()), requests.data(), &done, nullptr), "MPI_Testall");
  if (done) requests.clear();
  return done != 0;
}

void MpiRank::wait(Requests& requests, std::span<const int64_t> members) {
  for (int64_t tries = 0; !is_done(requests); ++tries) {
    progress();
    const int64_t gone = pause(tries, members);
    if (gone >= 0 && !is_done(requests)) fail_without(gone);
  }
}

// A rank that still computes may need this processor.
int64_t MpiRank::pause(int64_t tries, std::span<const int64_t> members) {
  constexpr int64_t kTriesBeforeYielding = 64, kTriesBeforeAsking = int64_t{1} << 18;  // about a tenth of a second
  if (tries >= kTriesBeforeYielding) sched_yield();
  if ((tries + 1) % kTriesBeforeAsking != 0) return -1;
  for (const int64_t member : members) {
    int found = 0;
    check(mpi_.iprobe(static_cast<int>(member), kGoodbye, letters_comm_, &found, nullptr), "MPI_Iprobe");
    if (found) return member;
  }
  return -1;
}

// What a rank sends comes before its goodbye, so what is not there by then never comes.
void MpiRank::fail_without(int64_t gone) const {
  throw UserError(concat_text("rank ", gone, " has ended, but rank ", rank(),
                              " waits for it; expected that every rank runs the whole script (has it left by sys.exit?)"));
}

void MpiRank::say_goodbye() {
  flush();
  Requests requests;
  for (const int64_t other : everyone_.ranks) {
    if (other == rank()) continue;
    check(mpi_.isend(nullptr, 0, mpi_.byte, static_cast<int>(other), kGoodbye, letters_comm_, &requests.emplace_back()), "MPI_Isend");
  }
  while (!is_done(requests)) sched_yield();
}

void MpiRank::barrier() {
  Requests requests(1);
  check(mpi_.ibarrier(mpi_.comm_world, requests.data()), "MPI_Ibarrier");
  wait(requests, everyone_.ranks);
}

void MpiRank::all_to_all(const Group& group, const void* in, void* out, int64_t bytes) {
  const std::vector<int64_t> sizes(index(group.size()), bytes);
  exchange(group, in, sizes.data(), out, sizes.data());
}

void MpiRank::all_to_all_v(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) {
  // Sizes that disagree would end in a wait without end.
  const int64_t n = group.size(), me = group.index;
  std::vector<int64_t> sent(index(n), in_bytes[me]);
  if (n > 1) {
    MpiLibrary::Comm comm = comm_of(group);
    Requests requests;
    for (int64_t member = 0; member < n; ++member) {
      if (member == me) continue;
      start_receive(comm, member, kTag, &sent[index(member)], sizeof(int64_t), requests);
      start_send(comm, member, kTag, in_bytes + member, sizeof(int64_t), requests);
    }
    wait(requests, group.ranks);
  }
  for (int64_t member = 0; member < n; ++member) {
    MW_CHECK(sent[index(member)] == out_bytes[member], "member ", member, " sends ", sent[index(member)], " bytes to member ", me,
             ", which expects ", out_bytes[member]);
  }
  exchange(group, in, in_bytes, out, out_bytes);
}

void MpiRank::exchange(const Group& group, const void* in, const int64_t* in_bytes, void* out, const int64_t* out_bytes) {
  const int64_t n = group.size(), me = group.index;
  std::vector<int64_t> in_start(index(n)), out_start(index(n));
  std::exclusive_scan(in_bytes, in_bytes + n, in_start.begin(), int64_t{0});
  std::exclusive_scan(out_bytes, out_bytes + n, out_start.begin(), int64_t{0});
  if (in_bytes[me] > 0) std::memcpy(at(out, out_start[index(me)]), at(in, in_start[index(me)]), index(in_bytes[me]));
  if (n == 1) return;
  MpiLibrary::Comm comm = comm_of(group);
  Requests requests;
  for (int64_t step = 1; step < n; ++step) {
    const int64_t from = (me - step + n) % n;
    start_receive(comm, from, kTag, at(out, out_start[index(from)]), out_bytes[from], requests);
  }
  for (int64_t step = 1; step < n; ++step) {
    const int64_t to = (me + step) % n;
    start_send(comm, to, kTag, at(in, in_start[index(to)]), in_bytes[to], requests);
  }
  wait(requests, group.ranks);
}

// The tag of MPI is that of the letter; a letter without bytes is one empty message.
void MpiRank::send(int64_t to, int64_t tag, const void* data, int64_t bytes) {
  MW_CHECK(tag >= 0 && tag <= int64_t{1} << 30, "the tag of a letter is ", tag);
  const auto* from = static_cast<const std::byte*>(data);
  Letter& letter = letters_.emplace_back();
  letter.data.assign(from, from + bytes);
  if (bytes == 0) {
    check(mpi_.isend(nullptr, 0, mpi_.byte, static_cast<int>(to), static_cast<int>(tag), letters_comm_, &letter.requests.emplace_back()),
          "MPI_Isend");
  }
  start_send(letters_comm_, to, static_cast<int>(tag), letter.data.data(), bytes, letter.requests);
  progress();
}

void MpiRank::receive(int64_t from, int64_t tag, void* data, int64_t bytes) {
  MpiLibrary::Status status{};
  const std::array<int64_t, 1> sender{from};
  const auto has_come = [&] {
    int found = 0;
    check(mpi_.iprobe(static_cast<int>(from), static_cast<int>(tag), letters_comm_, &found, &status), "MPI_Iprobe");
    return found != 0;
  };
  for (int64_t tries = 0; !has_come(); ++tries) {
    progress();
    if (pause(tries, sender) >= 0 && !has_come()) fail_without(from);
  }
  int arrived = 0;
  check(mpi_.get_count(&status, mpi_.byte, &arrived), "MPI_Get_count");
  MW_CHECK(arrived == std::min(bytes, kMessageBytes), "rank ", rank(), " expects ", bytes, " bytes from rank ", from, ", which sent ",
           arrived);
  Requests requests;
  if (bytes == 0) {
    check(mpi_.irecv(nullptr, 0, mpi_.byte, static_cast<int>(from), static_cast<int>(tag), letters_comm_, &requests.emplace_back()),
          "MPI_Irecv");
  }
  start_receive(letters_comm_, from, static_cast<int>(tag), data, bytes, requests);
  wait(requests, sender);
}

void MpiRank::progress() {
  for (Moving* transfer : moving_) transfer->advance();
  letters_.remove_if([&](Letter& letter) { return is_done(letter.requests); });
}

void MpiRank::flush() {
  while (!letters_.empty()) {
    progress();
    if (!letters_.empty()) sched_yield();
  }
}

}  // namespace mw
