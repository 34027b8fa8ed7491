#include "checkpoint/checkpoints.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <random>
#include <set>
#include <thread>

#include "checkpoint/commit.h"
#include "checkpoint/saving.h"
#include "runner.h"

namespace mw {
namespace {

void save_steps(const Trial& trial, const std::string& runs, std::initializer_list<int64_t> steps) {
  CheckpointWriter writer;
  for (const int64_t step : steps) trial.save(writer, runs, step);
  writer.wait();
}

std::vector<int64_t> steps_in(const std::string& runs) {
  std::vector<int64_t> steps;
  for (const Checkpoint& checkpoint : list_checkpoints(runs)) steps.push_back(checkpoint.step);
  return steps;
}

}  // namespace

TEST(checkpoint, listing_takes_only_our_names) {
  const TemporaryFolder runs;
  EXPECT(list_checkpoints(runs / "none").empty());
  EXPECT(!newest_valid(runs / "none").checkpoint);
  for (const char* name :
       {"step-00000002", "step-123456789", "step-1", "step-", "step--0000001", "step-00000002x", ".saving-step-00000003.1.0", "x"}) {
    std::filesystem::create_directory(runs / name);
  }
  EXPECT(steps_in(runs.path) == (std::vector<int64_t>{2, 123456789}));
}

TEST(checkpoint, any_damaged_file_makes_the_older_checkpoint_the_newest_valid) {
  const Trial trial;
  const TemporaryFolder runs;
  save_steps(trial, runs.path, {1, 2});
  EXPECT_EQ(newest_valid(runs.path).checkpoint->step, 2);
  const std::string newest = runs / "step-00000002";
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(newest)) {
    if (entry.is_regular_file()) files.push_back(entry.path().string());
  }
  EXPECT_EQ(files.size(), read_manifest(newest).size() + 1);
  for (const std::string& file : files) {
    const std::string bytes = get_file(file);
    std::string flipped = bytes;
    flipped[flipped.size() / 2] ^= 1;
    const auto expect_skipped = [&](const std::string& damage) {
      const NewestValid found = newest_valid(runs.path);
      if (!found.checkpoint || found.checkpoint->step != 1) throw std::runtime_error(damage + " of " + file + " was not noticed");
      EXPECT_EQ(found.skipped.size(), size_t{1});
      if (found.skipped[0].find(newest) == std::string::npos) throw std::runtime_error("does not name the file: " + found.skipped[0]);
      if (!file.ends_with("manifest.json") && found.skipped[0].find(file) == std::string::npos)
        throw std::runtime_error("does not name the file: " + found.skipped[0]);
      EXPECT_EQ(trial.check(found.checkpoint->path), "");
    };
    put_file(file, bytes.substr(0, bytes.size() - 2));  // the last byte of a manifest is only its line end
    expect_skipped("truncation");
    put_file(file, flipped);
    expect_skipped("a flipped bit");
    put_file(file, bytes + "x");
    expect_skipped("an appended byte");
    put_file(file, "");
    expect_skipped("emptying");
    std::filesystem::remove(file);
    expect_skipped("removal");
    std::filesystem::create_directory(file);
    expect_skipped("a folder in the place");
    std::filesystem::remove(file);
    put_file(file, bytes);
    EXPECT_EQ(newest_valid(runs.path).checkpoint->step, 2);
  }
}

TEST(checkpoint, old_ones_are_removed_but_never_the_only_whole_one) {
  const Trial trial;
  const TemporaryFolder runs;
  CheckpointWriter writer;
  for (int64_t step = 1; step <= 5; ++step) trial.save(writer, runs.path, step, 2);
  writer.wait();
  EXPECT(steps_in(runs.path) == (std::vector<int64_t>{4, 5}));
  save_steps(trial, runs.path, {6, 7});
  for (const char* name : {"step-00000005", "step-00000006", "step-00000007"}) std::filesystem::remove(runs / name + "/config.json");
  EXPECT_EQ(keep_newest(runs.path, 2).size(), size_t{1});  // 5 goes, 4 is the only whole one
  EXPECT(steps_in(runs.path) == (std::vector<int64_t>{4, 6, 7}));
  EXPECT_EQ(newest_valid(runs.path).checkpoint->step, 4);
  save_steps(trial, runs.path, {8});
  keep_newest(runs.path, 1, runs / "step-00000008");
  EXPECT(steps_in(runs.path) == std::vector<int64_t>{8});
}

TEST(checkpoint, leftovers_go_and_a_replaced_checkpoint_comes_back) {
  const TemporaryFolder runs;
  const Trial trial;
  save_steps(trial, runs.path, {1, 2});
  for (const char* name : {".saving-step-00000003.1.0", ".removing-step-00000000.1.0"}) {
    std::filesystem::create_directory(runs / name);
    put_file(runs / name + "/model.safetensors", "half");
  }
  std::filesystem::rename(runs / "step-00000002", runs / ".replaced-step-00000002");
  const PendingFolder alive(runs / "step-00000009");
  EXPECT_EQ(remove_leftovers(runs.path).size(), size_t{3});
  EXPECT(std::filesystem::exists(alive.path()));
  EXPECT(steps_in(runs.path) == (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(trial.check(runs / "step-00000002"), "");
}

#if !defined(__SANITIZE_THREAD__)  // it cannot follow threads of a forked child
TEST(checkpoint, kill_at_any_moment_leaves_a_whole_newest_checkpoint) {
  Trial trial;
  trial.rows = 512;
  trial.max_file_bytes = 300000;
  const TemporaryFolder runs;
  std::mt19937 random(20);
  int num_inside_a_save = 0;
  int64_t newest_before = -1;
  for (int kill = 0; kill < 20; ++kill) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        CheckpointWriter writer;
        int64_t step = newest_before + 1;
        for (;; ++step) trial.save(writer, runs.path, step, 2);
      } catch (...) {
        ::_exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(3000 + random() % 60000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    const NewestValid newest = newest_valid(runs.path);
    EXPECT(newest.skipped.empty());  // nothing half ever has a checkpoint's name
    if (newest_before >= 0) EXPECT(newest.checkpoint && newest.checkpoint->step >= newest_before);
    for (const Checkpoint& checkpoint : list_checkpoints(runs.path)) EXPECT_EQ(trial.check(checkpoint.path), "");
    num_inside_a_save += !remove_leftovers(runs.path).empty();
    for (const auto& entry : std::filesystem::directory_iterator(runs.path)) EXPECT(entry.path().filename().string().starts_with("step-"));
    if (newest.checkpoint) newest_before = newest.checkpoint->step;
  }
  EXPECT(newest_before > 0);
  EXPECT(num_inside_a_save >= 5);
}
#endif

}  // namespace mw
