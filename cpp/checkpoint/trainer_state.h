// trainer/trainer.json: what resuming needs besides tensors.
//
//   { "format": "meshwright-trainer", "version": 1, "step": 100, "seed": 0, "microbatches": 1, "mesh": [["data", 2]],
//     "data": {...}, "run": {...}, "weights": {"model-00001-of-00001.safetensors": {"bytes": 12, "xxh64": "ef46db3751d8e999"}} }
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/manifest.h"

namespace mw {

inline constexpr int64_t kMaxTrainerStateBytes = 64 << 20;

struct TrainerState {
  int64_t step = 0;  // optimizer steps done
  uint64_t seed = 0;
  int64_t microbatches = 1;
  std::vector<std::pair<std::string, int64_t>> mesh;  // axis and size, outermost first; informs, does not bind
  std::string data = "{}";                            // position of the data: a JSON object that the data room reads
  std::string run = "{}";                             // the run's configuration: a JSON object of free form
  FileDigests weights;                                // the weight files that the masters and moments belong to
  bool operator==(const TrainerState&) const = default;
};

std::string trainer_state_text(const TrainerState& state);

// Strict: an unknown, missing or mistyped key is a UserError with the nearest name. `data` and `run` come back as compact JSON.
TrainerState parse_trainer_state(std::string_view text, std::string_view what);

// UserError that offers reset_optimizer=true when a weight file in `folder` is not the one the optimizer's tensors belong to.
void check_weights_match(const TrainerState& state, const std::string& folder);

}  // namespace mw
