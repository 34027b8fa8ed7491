// What the passes made of a training step, as text.
#pragma once
#include <string>

#include "passes/explain.h"
#include "train/train_step.h"

namespace mw {

// `after`: "cut", "partition", ... prints every piece as it is after that pass, "before PASS" as it is before; "memory" the placed
// buffers; "collectives" the list of conversions with bytes, axes, scope and source line. UserError for another word.
std::string explain_step(const TrainStep& step, int64_t batch, int64_t seq, const std::string& after);

}  // namespace mw
