// Offsets of the buffers that pieces leave for one another (regions kCarried and kHost). Part of the pass `place`.
//
// Where pieces run several times, buffers lie side by side, each in as many copies as microbatches hold it at once. Where every piece runs
// once the step is one straight line, and a buffer has its bytes from its first op to its last: gradients take over those of activations
// that the backward has read.
#pragma once
#include <cstdint>
#include <vector>

#include "ir/plan.h"

namespace mw {

// Whether every piece runs once, and none waits for another stage.
bool runs_once(const Plan& plan);

// Places `buffers`, those of `region`, which all values there already name. Returns the bytes they take together.
int64_t place_carried(const Plan& plan, Region region, std::vector<Buffer>& buffers);

}  // namespace mw
