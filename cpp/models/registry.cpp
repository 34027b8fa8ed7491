#include "models/registry.h"

#include "base/error.h"
#include "models/llama.h"

namespace mw {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families{
      {.name = "llama",
       .hf_architecture = "LlamaForCausalLM",
       .hf_model_type = "llama",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = llama_head,
       .has_attention_bias = true,
       .has_mlp_bias = true,
       .heads_divide_embedding = true},
      {.name = "mistral",
       .hf_architecture = "MistralForCausalLM",
       .hf_model_type = "mistral",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = llama_head,
       .layer_kinds = {"global", "sliding"}},
      {.name = "qwen3",
       .hf_architecture = "Qwen3ForCausalLM",
       .hf_model_type = "qwen3",
       .parameters = llama_parameters,
       .hidden = llama_hidden,
       .head = llama_head,
       .layer_kinds = {"global", "sliding"},
       .one_layer_kind = false,
       .qk_norm = "rms",
       .has_attention_bias = true},
  };
  return families;
}

const ModelFamily& model_family(const std::string& name) {
  std::vector<std::string> names;
  for (const ModelFamily& family : model_families()) {
    if (family.name == name) return family;
    names.push_back(family.name);
  }
  std::string listed;
  for (const std::string& known : names) listed += (listed.empty() ? "" : ", ") + known;
  throw UserError("there is no model family '" + name + "'" + did_you_mean(name, names) + "; there are " + listed);
}

std::vector<ParameterSpec> model_parameters(const ModelConfig& config, DType dtype) {
  return model_family(config.family).parameters(config, dtype);
}

}  // namespace mw
