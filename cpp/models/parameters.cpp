#include "models/parameters.h"

#include "base/error.h"

namespace mw {

namespace {

int64_t product(const std::vector<Dim>& dims) { return Type{DType::kF32, dims}.elements(); }

}  // namespace

std::unordered_map<std::string, TensorPlace> tensor_places(const std::vector<ParameterSpec>& parameters) {
  std::unordered_map<std::string, TensorPlace> places;
  for (size_t p = 0; p < parameters.size(); ++p) {
    for (int64_t i = 0; i < parameters[p].num_tensors(); ++i) places.emplace(parameters[p].tensor_name(i), TensorPlace{p, i});
    for (const TensorCopy& copy : parameters[p].copies) {
      if (copy.written) places.emplace(copy.name, TensorPlace{p, 0});
    }
  }
  return places;
}

ParameterSpec& SpecList::matrix(std::string name, std::vector<Dim> rows, std::vector<Dim> columns, double deviation) {
  return tensor(std::move(name), {std::move(rows), std::move(columns)}, deviation);
}

ParameterSpec& SpecList::vector(std::string name, std::vector<Dim> dims, Initial initial) {
  ParameterSpec& spec = tensor(std::move(name), {std::move(dims)});
  spec.initial = initial;
  return spec;
}

ParameterSpec& SpecList::stacked(const std::string& pattern, Dim stack, std::vector<Dim> rows, std::vector<Dim> columns, double deviation) {
  const size_t at = pattern.find("{}");
  MW_CHECK(at != std::string::npos, pattern);
  const std::string before = pattern.substr(0, at), after = pattern.substr(at + 2);
  ParameterSpec& spec =
      tensor(before + after.substr(after.front() == '.' ? 1 : 0), {{stack}, std::move(rows), std::move(columns)}, deviation);
  spec.hf_shape.erase(spec.hf_shape.begin());
  for (int64_t i = 0; i < stack.size; ++i) spec.parts.push_back(before + std::to_string(i) + after);
  return spec;
}

ParameterSpec& SpecList::tensor(std::string name, std::vector<std::vector<Dim>> dims, double deviation) {
  ParameterSpec spec{.name = std::move(name), .type = {dtype_, {}}, .hf_shape = {}, .initial = Initial::kNormal, .deviation = deviation};
  for (const std::vector<Dim>& group : dims) {
    spec.type.dims.insert(spec.type.dims.end(), group.begin(), group.end());
    spec.hf_shape.push_back(product(group));
  }
  list.push_back(std::move(spec));
  return list.back();
}

int64_t num_elements(const std::vector<ParameterSpec>& parameters) {
  int64_t total = 0;
  for (const ParameterSpec& parameter : parameters) total += parameter.type.elements();
  return total;
}

Tensor ParameterSet::operator[](const std::string& name) const {
  const auto found = tensors_.find(name);
  MW_CHECK(found != tensors_.end(), "the model has no parameter '", name, "'");
  return found->second;
}

std::optional<Tensor> ParameterSet::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? std::nullopt : std::optional(found->second);
}

ParameterSet declare_parameters(Builder& builder, const std::vector<ParameterSpec>& parameters, const std::string& prefix) {
  ParameterSet set;
  for (const ParameterSpec& parameter : parameters) set.add(parameter.name, builder.parameter(prefix + parameter.name, parameter.type));
  return set;
}

}  // namespace mw
