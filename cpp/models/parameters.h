// The parameters of a model under their Hugging Face tensors' names, in those tensors' memory order. Most are one tensor; the experts of a
// layer are one parameter made of many tensors, stacked along its leading dims.
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

// A further tensor of the file with the bytes of a parameter: a tied head, the copies beside multi-token prediction.
struct TensorCopy {
  std::string name;
  bool written = false;  // on export; on import it may be absent, and is compared where it is there
};

struct ParameterSpec {
  std::string name;               // of the Hugging Face tensor, or what the names of several have in common
  Type type;                      // the elements in the tensor's own order, under our dims
  std::vector<int64_t> hf_shape;  // what the file says of one tensor: q_proj [heads * head_dim, embed]
  Initial initial = Initial::kNormal;
  double deviation = 0.02;    // of kNormal
  bool is_embedding = false;  // looked up by token id or position (a tied head is one too)
  bool is_bias = false;       // of several vectors at once, such as one per expert: never decays, although the file calls it a matrix
  // The tensors that are stacked to this parameter, each one contiguous piece of it; empty: one, under the parameter's name.
  std::vector<std::string> parts{};
  std::vector<TensorCopy> copies{};
  bool trained = true;  // false: moved by a rule of its own (the router's selection bias), never by a gradient

  // Whether weight decay applies unless the user says otherwise.
  bool decays() const { return hf_shape.size() >= 2 && !is_embedding && !is_bias && trained; }
  int64_t num_tensors() const { return parts.empty() ? 1 : static_cast<int64_t>(parts.size()); }
  const std::string& tensor_name(int64_t i) const { return parts.empty() ? name : parts.at(static_cast<size_t>(i)); }
  int64_t tensor_elements() const { return type.elements() / num_tensors(); }
};

// One Hugging Face tensor of a list of parameters.
struct TensorPlace {
  size_t parameter = 0;
  int64_t part = 0;
};

// Every Hugging Face tensor by name, written copies too; made once, since a model may have ten thousands.
std::unordered_map<std::string, TensorPlace> tensor_places(const std::vector<ParameterSpec>& parameters);

// Collects specs: matrices [out, in] or [in, out] and vectors, whose dims we name in finer grain.
class SpecList {
 public:
  explicit SpecList(DType dtype) : dtype_(dtype) {}

  // A matrix whose rows are `out` and columns `in` (GPT-2's are the other way round: rows are what goes in).
  ParameterSpec& matrix(std::string name, std::vector<Dim> rows, std::vector<Dim> columns, double deviation = 0.02);
  ParameterSpec& vector(std::string name, std::vector<Dim> dims, Initial initial);
  // One tensor per index of `stack`: "...experts.{}.up_proj.weight", where {} stands for it.
  ParameterSpec& stacked(const std::string& pattern, Dim stack, std::vector<Dim> rows, std::vector<Dim> columns, double deviation = 0.02);
  // A tensor of three dims or more, as the file says it.
  ParameterSpec& tensor(std::string name, std::vector<std::vector<Dim>> dims, double deviation = 0.02);

  std::vector<ParameterSpec> list;

 private:
  DType dtype_;
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
