// The model families: name -> its functions. Adding one: its file, a row in registry.cpp, its configs/models/*.json, a parity test.
#pragma once
#include <string>
#include <vector>

#include "layers/attention.h"
#include "models/model_config.h"
#include "models/outputs.h"
#include "models/parameters.h"

namespace mw {

struct ModelFamily {
  std::string name;
  std::string hf_architecture;
  std::string hf_model_type;
  std::vector<ParameterSpec> (*parameters)(const ModelConfig&, DType) = nullptr;
  // input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm. Appends the choices of layers with experts.
  Tensor (*hidden)(const ModelConfig&, const ParameterSet&, Tensor input_ids, const Tokens&, RouterOutputs*) = nullptr;
  // The output head [vocab, embed]; the embedding table when they are tied.
  Tensor (*head)(const ModelConfig&, const ParameterSet&) = nullptr;
  // Multi-token prediction module `depth` (0 ..): the hidden states of the module before it (of the model for the first) and the tokens
  // depth + 1 further on -> its hidden states, and the same normalised for the head.
  MtpHidden (*mtp)(const ModelConfig&, const ParameterSet&, int64_t depth, Tensor hidden, Tensor input_ids, const Tokens&,
                   RouterOutputs*) = nullptr;
  // The class that holds an image encoder beside this model; "" without one.
  std::string hf_multimodal_architecture{};
  std::string hf_multimodal_model_type{};
  // What its class in transformers can express.
  std::vector<std::string> layer_kinds{"global"};  // of these the attention pattern is made
  bool one_layer_kind = true;                      // all layers alike
  std::vector<std::string> rope_scalings{"none", "linear", "llama3", "yarn"};
  std::string pair_layout = "half_split";
  std::string qk_norm{};  // "": never, "rms", "l2"
  bool qk_norm_optional = false;
  bool has_attention_bias = false;
  bool has_mlp_bias = false;
  bool always_biased = false;  // bias everywhere, whatever the configuration says (GPT-2, GPT-OSS)
  bool heads_divide_embedding = false;
  bool gated_mlp = true;
  bool counts_windows = false;        // in FLOPs (docs/flops.md)
  bool heads_fill_embedding = false;  // embedding_dim is num_query_heads * head_dim, and every query head has its keys (GPT-2)
  bool has_rope = true;
  bool has_softcaps = false;
  bool has_attention_scale = false;  // attention_scale may differ from head_dim^-0.5
  bool has_experts = false;
  MoeConfig router{};                         // with experts: how they are chosen
  std::vector<std::string> router_choices{};  // of its fields, those that a configuration may set otherwise
  bool one_mlp_width = false;                 // mlp_dim is moe_mlp_dim: all layers have experts
  bool has_mla = false;
  bool has_mtp = false;
  bool has_temperature_tuning = false;
};

// UserError naming the nearest family.
const ModelFamily& model_family(const std::string& name);
const std::vector<ModelFamily>& model_families();

std::vector<ParameterSpec> model_parameters(const ModelConfig& config, DType dtype = DType::kF32);

}  // namespace mw
