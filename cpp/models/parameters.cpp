#include "models/parameters.h"

#include "base/error.h"

namespace mw {

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
