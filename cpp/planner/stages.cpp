#include "planner/stages.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/flops.h"
#include "models/programs.h"
#include "models/registry.h"
#include "passes/cut_stages.h"

namespace mw {

std::vector<int64_t> layers_of_parts(const ModelConfig& config, int64_t parts) {
  const int64_t layers = config.num_layers;
  if (parts > layers) {
    throw UserError(concat_text("a model of ", layers, " layers cannot be cut into ", parts,
                                " parts (stages times chunks); expected at most ", layers));
  }
  std::vector<int64_t> each(static_cast<size_t>(parts), (layers + parts - 1) / parts);
  int64_t spare = each[0] * parts - layers;
  const double head = 2 * static_cast<double>(config.embedding_dim * config.vocab_size);
  const double layer = (forward_flops(config, 1, 1) - head) / static_cast<double>(layers + config.mtp_layers);
  const int64_t behind = config.mtp_layers + static_cast<int64_t>(std::ceil(static_cast<double>(1 + config.mtp_layers) * head / layer));
  for (int64_t taken = 0; taken < behind && spare > 0 && each.back() > 1; ++taken, --spare) --each.back();
  for (size_t i = 0; spare > 0; ++i, --spare) --each[i % 2 == 0 ? i / 2 : each.size() - 2 - i / 2];
  return each;
}

Stages deal_out(const ModelConfig& config, int64_t stages, int64_t chunks) {
  Stages dealt;
  dealt.parameters.resize(static_cast<size_t>(stages));
  if (stages > 1) {
    dealt.layers = layers_of_parts(config, stages * chunks);
    // The loss reads all that the other Programs read, and with its term for the modules of multi-token prediction, these too.
    const LossTerms terms{.mtp = config.mtp_layers > 0 ? 1.0 : 0.0};
    dealt.parameters = cut_single_into_stages(trace_loss(config, {}, terms), "loss", stages, chunks, dealt.layers).parameters;
  }
  for (const ParameterSpec& p : model_parameters(config)) {
    const bool is_read = std::any_of(dealt.parameters.begin(), dealt.parameters.end(), [&](const auto& names) { return names.contains(p.name); });
    if (!is_read) dealt.parameters.back().insert(p.name);
  }
  return dealt;
}

}  // namespace mw
