// A small checkpoint whose every element follows from its step, saved and checked by several tests.
#pragma once
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/fixtures.h"
#include "checkpoint/folder.h"
#include "checkpoint/trainer_state.h"
#include "checkpoint/writer.h"

namespace mw {

struct Trial {
  int64_t rows = 64, columns = 48;
  int num_weights = 5;
  int64_t max_file_bytes = 40000;
  int num_writers = 2;

  std::string name(int i) const { return "layers." + std::to_string(i) + ".weight"; }

  std::vector<PlannedFile> files() const {
    TensorGroup weights{"model", {}}, moments{"trainer/state", {}};
    for (int i = 0; i < num_weights; ++i) {
      weights.tensors.push_back({name(i), i % 2 ? DType::kBF16 : DType::kF32, {rows, columns}});
      moments.tensors.push_back({name(i), DType::kF32, {rows, columns}});
    }
    return assign_files(std::vector<TensorGroup>{weights, moments}, max_file_bytes, num_writers);
  }

  // Whole numbers below 256: exact in bf16.
  static float value(int64_t step, int i, int64_t element) { return static_cast<float>((step * 7 + i * 31 + element) % 251); }

  std::vector<float> values(int64_t step, int i) const {
    std::vector<float> all(static_cast<size_t>(rows * columns));
    for (size_t e = 0; e < all.size(); ++e) all[e] = value(step, i, static_cast<int64_t>(e));
    return all;
  }

  SaveRequest request(const std::string& runs, int64_t step, int keep_last = 0) const {
    SaveRequest request{.folder = runs + "/" + checkpoint_name(step), .files = files(), .small_files = {}, .keep_last = keep_last};
    request.small_files.push_back({.path = "config.json", .bytes = "{}\n", .make = {}});
    request.small_files.push_back({.path = "trainer/trainer.json", .bytes = {}, .make = [step](const FileDigests& tensor_files) {
                                     TrainerState state;
                                     state.step = step;
                                     for (const auto& [path, digest] : tensor_files) {
                                       if (path.starts_with("model")) state.weights[path] = digest;
                                     }
                                     return trainer_state_text(state);
                                   }});
    return request;
  }

  // What every rank of a step does between begin and launch, with the rows cut in two pieces.
  void put_all(CheckpointWriter& writer, int64_t step) const {
    for (int i = 0; i < num_weights; ++i) {
      const std::vector<float> all = values(step, i);
      for (const char* stem : {"model", "trainer/state"}) {
        writer.put(stem, name(i), {{0, 0}, {rows / 2, columns}}, DType::kF32, all.data());
        writer.put(stem, name(i), {{rows / 2, 0}, {rows, columns}}, DType::kF32, all.data() + rows / 2 * columns);
      }
    }
  }

  void save(CheckpointWriter& writer, const std::string& runs, int64_t step, int keep_last = 0) const {
    writer.begin(request(runs, step, keep_last));
    put_all(writer, step);
    writer.launch();
  }

  // "" when the folder holds exactly the checkpoint of its step.
  std::string check(const std::string& folder) const {
    const TrainerState state = parse_trainer_state(get_file(folder + "/trainer/trainer.json"), "trainer.json");
    check_weights_match(state, folder);
    const TensorFolder weights = TensorFolder::open(folder), moments = TensorFolder::open(folder + "/trainer", "state");
    for (int i = 0; i < num_weights; ++i) {
      std::vector<float> stored(static_cast<size_t>(rows * columns));
      for (const TensorFolder* from : {&weights, &moments}) {
        from->read(name(i), DType::kF32, stored.data());
        if (stored != values(state.step, i)) return folder + ": wrong content of " + name(i);
      }
    }
    return folder.ends_with(checkpoint_name(state.step)) ? "" : folder + " holds step " + std::to_string(state.step);
  }
};

}  // namespace mw
