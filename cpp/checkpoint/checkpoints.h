// A folder of checkpoints: runs/a/step-00000100, runs/a/step-00000200, ... (other entries are left alone).
//
//   remove_leftovers("runs/a");                               // of runs that were killed while saving
//   const NewestValid newest = newest_valid("runs/a");
//   for (const std::string& reason : newest.skipped) warn(reason);   // "runs/a/step-00000200/manifest.json: cannot open: ..."
//   if (newest.checkpoint) resume(newest.checkpoint->path);
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace mw {

struct Checkpoint {
  int64_t step = 0;
  std::string path;
};

std::string checkpoint_name(int64_t step);  // "step-00000100"

// Sorted by step, whole or not; empty when `folder` does not exist.
std::vector<Checkpoint> list_checkpoints(const std::string& folder);

struct NewestValid {
  std::optional<Checkpoint> checkpoint;
  std::vector<std::string> skipped;  // for each newer one that is not whole: file and reason
};
NewestValid newest_valid(const std::string& folder, Verify verify = Verify::kChecksums);

// Removes what killed saves and removals left, except what a living process is writing; puts back a checkpoint that was moved aside
// for a successor that never came. Returns the names it dealt with.
std::vector<std::string> remove_leftovers(const std::string& folder);

// Removes all but the newest `keep` (at least 1) checkpoints; keeps the newest whole one too when none of those is whole.
// `known_whole`: the path of one that was just committed and need not be read again. Returns the paths removed.
std::vector<std::string> keep_newest(const std::string& folder, int keep, const std::string& known_whole = {});

}  // namespace mw
