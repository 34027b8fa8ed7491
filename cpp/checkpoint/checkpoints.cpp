#include "checkpoint/checkpoints.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/commit.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> entries_of(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  if (!fs::exists(folder, error)) return names;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) throw UserError(system_problem(folder, "list this folder", error.value()));
  std::sort(names.begin(), names.end());
  return names;
}

// The step of "step-00000100"; only the one spelling that checkpoint_name gives counts.
std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  int64_t step = 0;
  if (!name.starts_with(prefix)) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  return error == std::errc() && step >= 0 && checkpoint_name(step) == name ? std::optional(step) : std::nullopt;
}

bool same_path(const std::string& a, const std::string& b) {
  std::error_code error;
  return !b.empty() && fs::equivalent(a, b, error);
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return name;
}

std::vector<Checkpoint> list_checkpoints(const std::string& folder) {
  std::vector<Checkpoint> checkpoints;
  for (const std::string& name : entries_of(folder)) {
    if (const auto step = step_of(name)) checkpoints.push_back({*step, folder + "/" + name});
  }
  std::sort(checkpoints.begin(), checkpoints.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return checkpoints;
}

NewestValid newest_valid(const std::string& folder, Verify verify) {
  NewestValid newest;
  std::vector<Checkpoint> checkpoints = list_checkpoints(folder);
  for (; !checkpoints.empty(); checkpoints.pop_back()) {
    const std::optional<std::string> problem = problem_with(checkpoints.back().path, verify);
    if (!problem) {
      newest.checkpoint = checkpoints.back();
      break;
    }
    newest.skipped.push_back(*problem);
  }
  return newest;
}

std::vector<std::string> remove_leftovers(const std::string& folder) {
  std::vector<std::string> done;
  std::error_code error;
  for (const std::string& name : entries_of(folder)) {
    const std::string path = folder + "/" + name;
    if (name.starts_with(kReplacedPrefix)) {
      const std::string original = folder + "/" + name.substr(sizeof kReplacedPrefix - 1);
      if (fs::exists(original, error))
        remove_folder(path);
      else if (::rename(path.c_str(), original.c_str()) != 0)
        throw UserError(system_problem(path, "rename to " + original, errno));
    } else if (name.starts_with(kRemovingPrefix)) {
      fs::remove_all(path, error);
    } else if (name.starts_with(kSavingPrefix)) {
      const int lock = try_lock_folder(path);
      if (lock < 0) continue;  // a living process is writing it
      fs::remove_all(path, error);
      ::close(lock);
    } else {
      continue;
    }
    if (error) throw UserError(system_problem(path, "remove this folder", error.value()));
    done.push_back(name);
  }
  return done;
}

std::vector<std::string> keep_newest(const std::string& folder, int keep, const std::string& known_whole) {
  MW_CHECK(keep >= 1, keep);
  std::vector<Checkpoint> old = list_checkpoints(folder);
  if (old.size() <= static_cast<size_t>(keep)) return {};
  const std::vector<Checkpoint> kept(old.end() - keep, old.end());
  old.resize(old.size() - static_cast<size_t>(keep));
  const auto is_whole = [&](const Checkpoint& checkpoint) {
    return same_path(checkpoint.path, known_whole) || !problem_with(checkpoint.path);
  };
  if (std::none_of(kept.rbegin(), kept.rend(), is_whole)) {
    const auto saved = std::find_if(old.rbegin(), old.rend(), is_whole);
    if (saved != old.rend()) old.erase(std::next(saved).base());
  }
  std::vector<std::string> removed;
  for (const Checkpoint& checkpoint : old) {
    remove_folder(checkpoint.path);
    removed.push_back(checkpoint.path);
  }
  return removed;
}

}  // namespace mw
