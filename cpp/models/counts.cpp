#include "models/counts.h"

#include "models/registry.h"

namespace mw {
namespace {

// Weights and biases of the layers that SigLIP and Llama 4's encoder share: attention, a plain mlp, two LayerNorms.
int64_t encoder_layers(const VisionConfig& v) {
  const int64_t attention = 4 * (v.hidden_dim * v.hidden_dim + v.hidden_dim);
  const int64_t mlp = 2 * v.hidden_dim * v.mlp_dim + v.mlp_dim + v.hidden_dim;
  return v.num_layers * (attention + mlp + 4 * v.hidden_dim);
}

int64_t vision_parameters(const ModelConfig& config) {
  const VisionConfig& v = *config.vision;
  const int64_t side = v.image_size / v.patch_size, patches = side * side;
  const int64_t patch_embedding = v.hidden_dim * v.channels * v.patch_size * v.patch_size;
  const int64_t layer_norm = 2 * v.hidden_dim;
  if (v.kind == "siglip") {
    const int64_t encoder = patch_embedding + v.hidden_dim + patches * v.hidden_dim + encoder_layers(v) + layer_norm;
    return encoder + v.hidden_dim + v.hidden_dim * config.embedding_dim;  // the projector: a norm and a matrix
  }
  const int64_t class_token = v.hidden_dim;
  const int64_t encoder = patch_embedding + class_token + (patches + 1) * v.hidden_dim + encoder_layers(v) + 2 * layer_norm;
  const int64_t adapter = v.mlp_dim * v.projector_input_dim + v.projector_output_dim * v.projector_output_dim;
  return encoder + adapter + v.projector_output_dim * config.embedding_dim;
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& config) {
  ParameterCounts counts;
  const auto ends = [](const ParameterSpec& p, const char* end) { return p.name.ends_with(end); };
  for (const ParameterSpec& p : model_parameters(config)) {
    const int64_t elements = p.type.elements();
    bool of_mtp = false;
    for (int64_t i = config.num_layers; i < config.num_layers + config.mtp_layers; ++i)
      of_mtp = of_mtp || p.name.starts_with("model.layers." + std::to_string(i) + ".");
    if (of_mtp) {
      if (p.trained) counts.mtp += elements;
      continue;
    }
    if (!p.trained) {
      counts.selection_bias += elements;
      continue;
    }
    counts.total += elements;
    const bool of_experts = p.name.find(".experts.") != std::string::npos;
    counts.active += of_experts ? elements / config.moe->num_experts * config.moe->experts_per_token : elements;
    if (ends(p, "embed_tokens.weight") || ends(p, ".wte.weight")) counts.embedding += elements;
    if (ends(p, ".wpe.weight")) counts.positions += elements;
    if (ends(p, "lm_head.weight")) counts.head += elements;
  }
  if (config.vision) counts.vision = vision_parameters(config);
  counts.total += counts.vision;
  return counts;
}

}  // namespace mw
