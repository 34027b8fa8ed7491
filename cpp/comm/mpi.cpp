#include "comm/mpi.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "comm/agreement.h"

namespace mw {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

// The file that was loaded, links followed. The loader finds a name without a folder by itself.
std::string real_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? path : real.string();
}

// "host 1101": a digit per processor that this process may use.
std::string usable_here() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::string text = host_name() + " ";
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) text += CPU_ISSET(cpu, &set) ? '1' : '0';
  return text;
}

}  // namespace

MpiWorld::MpiWorld() : mpi_(load_mpi()) {
  int started = 0, provided = 0;
  mpi_.initialized(&started);
  if (!started) {
    if (mpi_.init_thread(nullptr, nullptr, MpiLibrary::kThreadSerialized, &provided) != MpiLibrary::kSuccess)
      throw UserError("MPI did not start; its library is " + mpi_.path);
    started_here_ = true;
  }
  rank_ = std::make_unique<MpiRank>(mpi_);
  local_ = {rank_->rank()};
  if (const int expected = mpirun_size(); expected != 0 && expected != size()) {
    throw UserError(concat_text("mpirun started ", expected, " ranks, but this one finds ", size(), " with the library ", mpi_.path, " (",
                                mpi_.version, "), which is not that of this mpirun; set MESHWRIGHT_MPI_LIBRARY to the one that is"));
  }
  check_same_library();
  share_processors();
}

// Hosts may keep the library at different places, but two files on one host are two installations, even of the same version.
void MpiWorld::check_same_library() {
  const std::string mine = concat_text(host_name(), "\n", real_path(mpi_.path), "\n", mpi_.version);
  const std::vector<std::string> texts = gather_texts(*rank_, rank_->everyone(), mine);
  const auto lines = [](const std::string& text) {
    const size_t first = text.find('\n'), second = text.find('\n', first + 1);
    return std::array{text.substr(0, first), text.substr(first + 1, second - first - 1), text.substr(second + 1)};
  };
  std::map<std::string, size_t> first_of;  // host -> the first rank there
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const auto [host, path, version] = lines(texts[rank]);
    const size_t neighbour = first_of.emplace(host, rank).first->second;
    for (const size_t other : {size_t{0}, neighbour}) {
      const auto [other_host, other_path, other_version] = lines(texts[other]);
      if (version == other_version && (host != other_host || path == other_path)) continue;
      throw UserError(concat_text("the ranks of this run load different MPI libraries:\n  ", other_path, " (", other_version, ") on rank ",
                                  other, "\n  ", path, " (", version, ") on rank ", rank,
                                  "\nexpected that of the mpirun that started them; MESHWRIGHT_MPI_LIBRARY names it"));
    }
  }
}

// The ranks of a host share what any of them may use: right both where mpirun gave each rank its own processors and where it did not.
void MpiWorld::share_processors() {
  const std::string mine = usable_here();
  std::map<std::string, std::pair<int, std::string>> hosts;  // ranks and usable processors
  for (const std::string& text : gather_texts(*rank_, rank_->everyone(), mine)) {
    const size_t space = text.find(' ');
    auto& [ranks, usable] = hosts[text.substr(0, space)];
    usable.resize(std::max(usable.size(), text.size() - space - 1), '0');
    for (size_t cpu = 0; cpu < text.size() - space - 1; ++cpu) usable[cpu] = std::max(usable[cpu], text[space + 1 + cpu]);
    ++ranks;
  }
  processors_per_rank_ = CPU_SETSIZE;
  for (const auto& [name, found] : hosts) {
    const auto usable = static_cast<int>(std::count(found.second.begin(), found.second.end(), '1'));
    processors_per_rank_ = std::min(processors_per_rank_, std::max(1, usable / found.first));
  }
}

Communicator& MpiWorld::rank(int64_t r) {
  MW_CHECK(r == rank_->rank(), "rank ", r, " is in another process than rank ", rank_->rank());
  return *rank_;
}

void MpiWorld::finish() {
  rank_->say_goodbye();
  if (started_here_) mpi_.finalize();
}

void MpiWorld::abort(int status) { mpi_.abort(mpi_.comm_world, status); }

}  // namespace mw
