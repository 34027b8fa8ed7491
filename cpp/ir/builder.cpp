#include "ir/builder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ir/dim_names.h"

namespace mw {

const Type& Tensor::type() const {
  MW_CHECK(builder && id >= 0, "an empty Tensor was used");
  return builder->program().type(id);
}

Source Source::here(std::source_location location) {
  const char* file = location.file_name();
  if (const char* root = std::strstr(file, "cpp/")) file = root;  // paths of the build machine stay out
  return Source(std::string(file) + ":" + std::to_string(location.line()));
}

Tensor Builder::add_input(const std::string& name, InputKind kind, Type type) {
  check_dims(type.dims);
  check_names(type);
  if (!is_new_input(name)) throw UserError("'" + name + "' is an input of " + program_.name + " already");
  const ValueId id = program_.add_value(std::move(type), -1);
  program_.inputs.push_back({name, kind, id});
  return {this, id};
}

bool Builder::is_new_input(const std::string& name) {
  if (input_names_.size() != program_.inputs.size()) {  // a Program that was taken over
    input_names_.clear();
    for (const ProgramInput& input : program_.inputs) input_names_.insert(input.name);
  }
  return input_names_.insert(name).second;
}

bool Builder::is_new_output(const std::string& name, OutputKind kind) {
  const auto key = [](const std::string& output, OutputKind of) { return std::to_string(static_cast<int>(of)) + output; };
  if (output_names_.size() != program_.outputs.size()) {
    output_names_.clear();
    for (const ProgramOutput& output : program_.outputs) output_names_.insert(key(output.name, output.kind));
  }
  return output_names_.insert(key(name, kind)).second;
}

void Builder::check_names(const Type& type) const {
  for (const Dim& dim : type.dims) {
    if (is_standard_dim(dim.name) || std::find(program_.own_dims.begin(), program_.own_dims.end(), dim.name) != program_.own_dims.end())
      continue;
    std::vector<std::string> known = standard_dims();
    known.insert(known.end(), program_.own_dims.begin(), program_.own_dims.end());
    throw UserError("the dim name '" + dim.name + "' in " + to_string(type) + " is not declared" + did_you_mean(dim.name, known) +
                    "; a name of your own is declared with mw.Dim");
  }
}

void Builder::output(const std::string& name, Tensor value, OutputKind kind) {
  MW_CHECK(value.builder == this, "output '", name, "' belongs to another builder");
  if (!is_new_output(name, kind)) throw UserError("'" + name + "' is an output of " + program_.name + " already");
  program_.outputs.push_back({name, kind, value.id});
}

std::vector<Tensor> Builder::append(const OpDef& def, const std::vector<Tensor>& operands, Attributes attributes, const Source& source) {
  Op op{.def = &def, .operands = {}, .results = {}, .attributes = std::move(attributes)};
  for (const Tensor& operand : operands) {
    MW_CHECK(operand.builder == this, def.name, ": an operand belongs to another builder");
    op.operands.push_back(operand.id);
  }
  op.scope = program_.intern_scope(scope_);
  op.source = program_.intern_source(fixed_source_.empty() ? source.text : fixed_source_);
  op.pass = pass_;
  std::vector<Type> types;
  try {
    types = infer_types(def, program_.signature(op));
    for (const Type& type : types) {
      check_dims(type.dims);
      check_names(type);
    }
  } catch (const UserError& error) {
    throw UserError(program_.describe(op) + ": " + error.what());
  }
  std::vector<Tensor> results;
  for (Type& type : types) {
    op.results.push_back(program_.add_value(std::move(type), static_cast<int32_t>(program_.ops.size())));
    results.push_back({this, op.results.back()});
  }
  program_.ops.push_back(std::move(op));
  if (observer) observer(program_, program_.ops.size() - 1);
  return results;
}

void Builder::set_origin(const Program& program, const Op& op) {
  scope_ = program.scopes[static_cast<size_t>(op.scope)];
  fixed_source_ = program.sources[static_cast<size_t>(op.source)];
}

DType GradientContext::gradient_dtype(size_t i) const {
  const Program& program = builder.program();
  const ValueId id = operands.at(i).id;
  if (program.values[static_cast<size_t>(id)].producer < 0 && operands[i].dtype() == DType::kBF16) {
    for (const ProgramInput& input : program.inputs) {
      if (input.value == id && input.kind == InputKind::kParameter) return DType::kF32;
    }
  }
  return operands[i].dtype();
}

}  // namespace mw
