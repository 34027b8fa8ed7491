// How a model is dealt out to the stages of a pipeline: what both a run and a plan of it go by.
//
//   const Stages stages = deal_out(config, 4, 1);
//   stages.parameters[0].contains("model.embed_tokens.weight")
#pragma once
#include <set>
#include <string>
#include <vector>

#include "models/model_config.h"

namespace mw {

// Layers of each of stages * chunks parts, as even as they go. Where that leaves some short, the last part has as much less as heads and
// modules of multi-token prediction take, then the first parts and the last ones have one less. Then layers go from the last part to idler
// stages where it is the busiest. One or two parts more than there are layers leave the last one, then the first one, without any: it has
// the head, or the embedding, alone. UserError beyond that.
std::vector<int64_t> layers_of_parts(const ModelConfig& config, int64_t stages, int64_t chunks);

struct Stages {
  std::vector<int64_t> layers;                    // of each part; empty where there is one stage
  std::vector<std::set<std::string>> parameters;  // that each stage keeps: those that its layers read in any Program of the model
};

// `chunks`: parts of each stage. A parameter that no Program reads is the last stage's.
Stages deal_out(const ModelConfig& config, int64_t stages, int64_t chunks);

}  // namespace mw
