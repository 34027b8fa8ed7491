#include "checkpoint/writer.h"

#include <signal.h>
#include <sys/resource.h>

#include <set>
#include <thread>

#include "checkpoint/commit.h"
#include "checkpoint/saving.h"
#include "runner.h"

namespace mw {
namespace {

struct FileSizeLimit {
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before);
    const rlimit limit{bytes, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before); }
  rlimit before{};
};

std::vector<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return {names.begin(), names.end()};
}

}  // namespace

TEST(checkpoint, files_do_not_depend_on_the_number_of_writers) {
  std::vector<TensorSpec> tensors;
  for (int i = 0; i < 20; ++i) tensors.push_back({"t" + std::to_string(i), i % 3 ? DType::kBF16 : DType::kF32, {100 + i, 50}});
  tensors.push_back({"large", DType::kF32, {30000}});
  const std::vector<TensorGroup> groups{{"model", tensors}, {"trainer/state", {tensors.begin(), tensors.begin() + 4}}};
  const auto one = assign_files(groups, 50000, 1), four = assign_files(groups, 50000, 4);
  EXPECT(one.size() > 8);
  EXPECT_EQ(one.size(), four.size());
  std::vector<int64_t> load(4);
  std::set<std::string> names;
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT(one[i].path == four[i].path && one[i].tensors == four[i].tensors);
    EXPECT_EQ(one[i].writer, 0);
    load[static_cast<size_t>(four[i].writer)] += four[i].num_bytes();
    const int64_t bytes = four[i].num_bytes() + static_cast<int64_t>(safetensors_header(four[i].tensors, {{"format", "pt"}}).size());
    EXPECT(bytes <= 50000 || four[i].tensors.size() == 1);
    for (const TensorSpec& tensor : one[i].tensors) EXPECT(names.insert(one[i].stem + tensor.name).second);
  }
  EXPECT_EQ(names.size(), size_t{25});
  EXPECT_EQ(one[0].path, "model-00001-of-00008.safetensors");
  EXPECT_EQ(one.back().stem, "trainer/state");
  for (const int64_t bytes : load) EXPECT(bytes > 0 && bytes <= 130000);
}

TEST(checkpoint, a_save_from_several_ranks_reads_back) {
  const TemporaryFolder runs;
  const Trial trial;
  CheckpointWriter writer;
  for (int64_t step : {3, 4}) {
    writer.begin(trial.request(runs.path, step));
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < 4; ++rank) {
      ranks.emplace_back([&, rank] {  // each rank holds 12 of the 48 columns of every tensor
        for (int i = 0; i < trial.num_weights; ++i) {
          const std::vector<float> all = trial.values(step, i);
          std::vector<float> piece;
          for (int64_t row = 0; row < trial.rows; ++row)
            piece.insert(piece.end(), &all[static_cast<size_t>(row * 48 + rank * 12)],
                         &all[static_cast<size_t>(row * 48 + rank * 12)] + 12);
          const Slice slice{{0, rank * 12}, {trial.rows, rank * 12 + 12}};
          writer.put("model", trial.name(i), slice, DType::kF32, piece.data());
          writer.put("trainer/state", trial.name(i), slice, DType::kF32, piece.data());
        }
      });
    }
    for (std::thread& rank : ranks) rank.join();
    writer.launch();
  }
  writer.wait();
  EXPECT(writer.poll());
  EXPECT_EQ(writer.staging_bytes(), staging_bytes(trial.files()));
  EXPECT_EQ(trial.check(runs / "step-00000003"), "");
  EXPECT_EQ(trial.check(runs / "step-00000004"), "");
  EXPECT(names_in(runs.path) == (std::vector<std::string>{"step-00000003", "step-00000004"}));
  const auto names = names_in(runs / "step-00000003");
  EXPECT(std::count(names.begin(), names.end(), "model.safetensors.index.json") == 1);
  EXPECT(!problem_with(runs / "step-00000003"));
  writer.release_staging();
  EXPECT_EQ(writer.staging_bytes(), 0);
}

TEST(checkpoint, one_and_many_writers_write_the_same_bytes) {
  const TemporaryFolder one, many;
  for (const auto& [runs, num_writers] : {std::pair(&one, 1), std::pair(&many, 5)}) {
    Trial trial;
    trial.num_writers = num_writers;
    CheckpointWriter writer;
    trial.save(writer, runs->path, 1);
    writer.wait();
  }
  EXPECT(read_manifest(one / "step-00000001") == read_manifest(many / "step-00000001"));
}

TEST(checkpoint, save_now_streams_the_same_files) {
  const TemporaryFolder runs;
  const Trial trial;
  CheckpointWriter writer;
  trial.save(writer, runs / "staged", 9);
  writer.wait();
  save_now(trial.request(runs / "streamed", 9), [&](const PlannedFile&, const TensorSpec& tensor, const Sink& sink) {
    const std::vector<float> all = trial.values(9, tensor.name[7] - '0');
    for (const float& value : all) {
      const BF16 narrow = to_bf16(value);
      if (tensor.dtype == DType::kF32)
        sink(std::as_bytes(std::span(&value, 1)));
      else
        sink(std::as_bytes(std::span(&narrow, 1)));
    }
  });
  EXPECT(read_manifest(runs / "staged/step-00000009") == read_manifest(runs / "streamed/step-00000009"));
}

TEST(checkpoint, staging_refuses_what_does_not_fit) {
  const TemporaryFolder runs;
  const Trial trial;
  CheckpointWriter writer;
  writer.begin(trial.request(runs.path, 1));
  const std::vector<float> all = trial.values(1, 0);
  EXPECT_ERROR(
      UserError, { writer.put("model", "layers.9.weight", whole({64, 48}), DType::kF32, all.data()); },
      "'layers.9.weight' is not among the files of 'model'");
  EXPECT_ERROR(
      UserError, { writer.put("model", "layers.0.weight", whole({64, 49}), DType::kF32, all.data()); },
      "not inside tensor 'layers.0.weight'");
  writer.put("model", "layers.0.weight", whole({32, 48}), DType::kF32, all.data());
  EXPECT_ERROR(InternalError, { writer.launch(); }, "'layers.0.weight' of model: 1536 of 3072 elements");
}

TEST(checkpoint, a_full_disk_is_an_error_with_path_bytes_and_reason) {
  EXPECT_ERROR(
      UserError,
      {
        FileWriter file("/dev/full");
        file.write("twelve bytes");
        file.finish();
      },
      "/dev/full: cannot write 12 bytes after the first 0", "No space left on device");
}

TEST(checkpoint, a_size_limit_surfaces_at_the_next_poll_and_leaves_older_checkpoints) {
  const TemporaryFolder runs;
  Trial trial;
  trial.max_file_bytes = 1 << 30;
  CheckpointWriter writer;
  trial.save(writer, runs.path, 1);
  writer.wait();
  {
    const FileSizeLimit limit(30000);  // SIGXFSZ has its default action, which ends the process
    trial.save(writer, runs.path, 2);
    EXPECT_ERROR(
        UserError, { writer.wait(); }, runs / ".saving-step-00000002", "-00001-of-00001.safetensors", "bytes after the first",
        "File too large");
    EXPECT(writer.poll());  // the error is told once
    trial.save(writer, runs.path, 3);
    EXPECT_ERROR(
        UserError,
        {
          while (!writer.poll()) std::this_thread::yield();
        },
        "step-00000003", "File too large");
    EXPECT_ERROR(
        UserError, { write_file(runs / "in-this-thread", std::string(40000, 'x')); }, "cannot write 10000 bytes after the first 30000",
        "File too large");
    sigset_t pending;
    sigpending(&pending);
    EXPECT(!sigismember(&pending, SIGXFSZ));
  }
  std::filesystem::remove(runs / "in-this-thread");
  EXPECT(names_in(runs.path) == std::vector<std::string>{"step-00000001"});
  EXPECT_EQ(trial.check(runs / "step-00000001"), "");
  trial.save(writer, runs.path, 2);
  writer.wait();
  EXPECT_EQ(trial.check(runs / "step-00000002"), "");
}

TEST(checkpoint, a_place_that_cannot_be_written_is_an_error) {
  const TemporaryFolder runs;
  const Trial trial;
  CheckpointWriter writer;
  put_file(runs / "file", "x");
  trial.save(writer, runs / "file", 1);
  EXPECT_ERROR(UserError, { writer.wait(); }, runs / "file", "Not a directory");
  put_file(runs / "step-00000001", "x");
  trial.save(writer, runs.path, 1);
  EXPECT_ERROR(UserError, { writer.wait(); }, "step-00000001: expected a folder or nothing there, found a file");
  trial.save(writer, "/proc/none", 1);
  EXPECT_ERROR(UserError, { writer.wait(); }, "/proc/none", "cannot make this folder");
  if (::geteuid() != 0) {
    std::filesystem::create_directory(runs / "locked");
    std::filesystem::permissions(runs / "locked", std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    trial.save(writer, runs / "locked", 1);
    EXPECT_ERROR(UserError, { writer.wait(); }, "locked", "Permission denied");
  }
}

TEST(checkpoint, only_a_checkpoint_of_ours_is_replaced) {
  const TemporaryFolder runs;
  const Trial trial;
  CheckpointWriter writer;
  std::filesystem::create_directory(runs / "step-00000001");  // empty: nothing to lose
  for (int round = 0; round < 2; ++round) {
    trial.save(writer, runs.path, 1);
    writer.wait();
    EXPECT_EQ(trial.check(runs / "step-00000001"), "");
    EXPECT(names_in(runs.path) == std::vector<std::string>{"step-00000001"});
  }
  put_file(runs / "step-00000001/README.md", "mine");
  trial.save(writer, runs.path, 1);
  EXPECT_ERROR(UserError, { writer.wait(); }, "holds 'README.md', which is not part of a checkpoint");
  EXPECT_EQ(get_file(runs / "step-00000001/README.md"), "mine");
}

TEST(checkpoint, a_failing_source_or_small_file_leaves_nothing) {
  const TemporaryFolder runs;
  const Trial trial;
  EXPECT_ERROR(
      UserError, { save_now(trial.request(runs.path, 1), [](const auto&, const auto&, const auto&) { throw UserError("no data"); }); },
      "no data");
  EXPECT(names_in(runs.path).empty());
  SaveRequest outside{.folder = runs / "a", .files = {}, .small_files = {{.path = "../b", .bytes = "x", .make = {}}}};
  EXPECT_ERROR(InternalError, { save_now(outside, {}); }, "'../b' leaves the checkpoint folder");
  EXPECT(names_in(runs.path).empty());
}

}  // namespace mw
