// Where the time of an optimizer step goes: processor time by op and scope.
//
//   for (const ProfileRow& row : profile_step(step, batch, loss_scale, lr, 3)) ...   // the slowest first
#pragma once
#include <string>
#include <vector>

#include "train/train_step.h"

namespace mw {

struct ProfileRow {
  std::string piece;  // "forward", "backward", "update"
  std::string op;
  std::string scope;  // with layer numbers replaced by '*'
  int64_t calls = 0;
  double seconds = 0;  // of all threads of this process, per step
  double flops = 0;    // per step
};

// Makes `steps` real optimizer steps. What the first rank of this process does; times are exact where it is the only one, several share the
// clock.
std::vector<ProfileRow> profile_step(TrainStep& step, const ModelInputs& batch, double loss_scale, double lr, int steps);

}  // namespace mw
