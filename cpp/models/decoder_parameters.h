// What the parameter lists of the families have in common: grouped attention, mlps and experts as transformers names and orders them.
//
//   DecoderParameters p(config, dtype);
//   p.embedding();
//   p.attention("model.layers.0.self_attn.");
//   p.gated_mlp("model.layers.0.mlp.", config.mlp_dim);
#pragma once
#include <string>
#include <vector>

#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

// The names of an expert's three matrices.
struct ExpertNames {
  std::string gate = "gate_proj", up = "up_proj", down = "down_proj";
};

struct DecoderParameters {
  // `norm` is what norm weights begin as: ones, or zeros where 1 + w multiplies.
  DecoderParameters(const ModelConfig& config, DType dtype, Initial norm = Initial::kOnes);

  void embedding();   // PREFIXmodel.embed_tokens; written as the head too where they are tied
  void final_norm();  // PREFIXmodel.norm
  void head();        // PREFIXlm_head, unless tied
  void projection(const std::string& name, const std::vector<Dim>& out, const std::vector<Dim>& in, bool bias, double deviation = 0.02);
  void norm(const std::string& name, Dim dim);
  // q, k, v, o and, where they have weights, the norms of query and key heads; `at` ends in ".".
  void attention(const std::string& at);
  void gated_mlp(const std::string& at, int64_t width, bool bias = false);
  // One tensor per expert and matrix, stacked.
  void experts(const std::string& at, const ExpertNames& names = {});

  const ModelConfig& config;
  const std::string prefix;  // "language_model." in the files of the multimodal classes
  SpecList specs;
  Initial norm_initial;
  // Of the projections that write to the residual stream: 0.02 / sqrt(2 * num_layers), so that the stream's variance does not grow with
  // depth (Radford et al. 2019).
  double to_residual;
  Dim embed, vocab, kv_heads, q_per_kv, head_dim, num_experts, expert_mlp;
};

}  // namespace mw
