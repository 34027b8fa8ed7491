// The model families: name -> its functions. Adding one: its file, a row in registry.cpp, its configs/models/*.json, a parity test.
#pragma once
#include <string>
#include <vector>

#include "layers/attention.h"
#include "models/model_config.h"
#include "models/parameters.h"

namespace mw {

struct ModelFamily {
  std::string name;
  std::string hf_architecture;
  std::string hf_model_type;
  std::vector<ParameterSpec> (*parameters)(const ModelConfig&, DType);
  // input_ids i32[batch, seq] -> hidden states [batch, seq, embed] after the final norm.
  Tensor (*hidden)(const ModelConfig&, const ParameterSet&, Tensor input_ids, const Tokens&);
  // The output head [vocab, embed]; the embedding table when they are tied.
  Tensor (*head)(const ModelConfig&, const ParameterSet&);
  // What its class in transformers can express.
  bool has_qk_norm = false;
  bool has_window = false;
  bool has_attention_bias = false;
  bool has_mlp_bias = false;
  bool heads_divide_embedding = false;
};

// UserError naming the nearest family.
const ModelFamily& model_family(const std::string& name);
const std::vector<ModelFamily>& model_families();

std::vector<ParameterSpec> model_parameters(const ModelConfig& config, DType dtype = DType::kF32);

}  // namespace mw
