#include "planner/stages.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/flops.h"
#include "models/programs.h"
#include "models/registry.h"
#include "passes/cut_stages.h"

namespace mw {

namespace {

// Layers go from the last part to the stage with the least work while that makes the busiest stage less busy. `behind`: what the last stage
// has beside its layers, in layers.
void relieve_last(std::vector<int64_t>& each, int64_t stages, double behind) {
  const auto n = static_cast<size_t>(stages);
  std::vector<double> work(n, 0.0);
  for (size_t part = 0; part < each.size(); ++part) work[part % n] += static_cast<double>(each[part]);
  work.back() += behind;
  while (each.back() > 0) {
    const auto least = static_cast<size_t>(std::min_element(work.begin(), work.end()) - work.begin());
    if (work[least] + 1 >= work.back()) return;
    work[least] += 1;
    work.back() -= 1;
    ++each[least];
    --each.back();
  }
}

}  // namespace

std::vector<int64_t> layers_of_parts(const ModelConfig& config, int64_t stages, int64_t chunks) {
  const int64_t parts = stages * chunks;
  const int64_t layers = config.num_layers;
  if (parts > layers + 2) {
    throw UserError(concat_text("a model of ", layers, " layers cannot be cut into ", parts,
                                " parts (stages times chunks); expected at most ", layers + 2,
                                ", with the embedding and the head in parts of their own"));
  }
  std::vector<int64_t> each(static_cast<size_t>(parts), (layers + parts - 1) / parts);
  int64_t spare = each[0] * parts - layers;
  if (parts > layers) {
    each.back() = 0;
    if (spare > 1) each.front() = 0;
    return each;
  }
  const double head = 2 * static_cast<double>(config.embedding_dim * config.vocab_size);
  const double layer = (forward_flops(config, 1, 1) - head) / static_cast<double>(layers + config.mtp_layers);
  const double behind = static_cast<double>(config.mtp_layers) + static_cast<double>(1 + config.mtp_layers) * head / layer;  // in layers
  for (int64_t taken = 0; static_cast<double>(taken) < behind && spare > 0 && each.back() > 1; ++taken, --spare) --each.back();
  for (size_t i = 0; spare > 0; ++i, --spare) --each[i % 2 == 0 ? i / 2 : each.size() - 2 - i / 2];
  relieve_last(each, stages, behind);
  return each;
}

Stages deal_out(const ModelConfig& config, int64_t stages, int64_t chunks) {
  check_pipeline(PipelineOrder::kGpipe, {stages, chunks, 1});
  Stages dealt;
  dealt.parameters.resize(static_cast<size_t>(stages));
  if (stages > 1) {
    dealt.layers = layers_of_parts(config, stages, chunks);
    // The loss reads all that the other Programs read, and with its term for the modules of multi-token prediction, these too.
    const LossTerms terms{.mtp = config.mtp_layers > 0 ? 1.0 : 0.0};
    dealt.parameters = cut_single_into_stages(trace_loss(config, {}, terms), "loss", stages, chunks, dealt.layers).parameters;
  }
  for (const ParameterSpec& p : model_parameters(config)) {
    const bool is_read =
        std::any_of(dealt.parameters.begin(), dealt.parameters.end(), [&](const auto& names) { return names.contains(p.name); });
    if (!is_read) dealt.parameters.back().insert(p.name);
  }
  return dealt;
}

}  // namespace mw
