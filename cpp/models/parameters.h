// The parameters of a model: one per Hugging Face tensor, in that tensor's memory order, under its name.
//
//   for (const ParameterSpec& p : model_parameters(config)) ...          // models/registry.h
//   ParameterSet weights = declare_parameters(builder, model_parameters(config));
//   Tensor w = weights["model.layers.0.mlp.gate_proj.weight"];
#pragma once
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ir/builder.h"

namespace mw {

enum class Initial : uint8_t { kNormal, kOnes, kZeros };

struct ParameterSpec {
  std::string name;               // of the Hugging Face tensor
  Type type;                      // the tensor's elements in its own order, under our dims
  std::vector<int64_t> hf_shape;  // what its file says: q_proj [heads * head_dim, embed]
  Initial initial = Initial::kNormal;
  double deviation = 0.02;    // of kNormal
  bool is_embedding = false;  // looked up by token id (a tied head is one too)

  // Whether weight decay applies unless the user says otherwise.
  bool decays() const { return hf_shape.size() >= 2 && !is_embedding; }
};

int64_t num_elements(const std::vector<ParameterSpec>& parameters);

// Parameters of a Program by Hugging Face name.
class ParameterSet {
 public:
  Tensor operator[](const std::string& name) const;  // InternalError when there is none
  std::optional<Tensor> find(const std::string& name) const;
  void add(const std::string& name, Tensor tensor) { tensors_.emplace(name, tensor); }

 private:
  std::unordered_map<std::string, Tensor> tensors_;
};

// Declares every parameter, in order. `prefix` sets a second model's parameters apart ("reference." in preference training); the set
// knows them without it.
ParameterSet declare_parameters(Builder& builder, const std::vector<ParameterSpec>& parameters, const std::string& prefix = "");

}  // namespace mw
