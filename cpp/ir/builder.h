// Builder appends ops to a Program; Tensor is a Value seen from model code. Free functions in cpp/ops take and give Tensors.
//
//   Builder b("example");
//   Tensor x = b.input("x", {DType::kF32, {{"batch", 2}, {"embed", 4}}});
//   { Scope scope(b, "head"); b.output("y", exp(x) * x); }
//
// In immediate mode an observer evaluates each op as it is appended.
#pragma once
#include <functional>
#include <source_location>
#include <string>
#include <unordered_set>
#include <vector>

#include "ir/program.h"

namespace mw {

class Builder;

// A Value seen from model code. Copied freely; lives as long as its Builder.
struct Tensor {
  Builder* builder = nullptr;
  ValueId id = kNoValue;

  const Type& type() const;
  int64_t size(std::string_view dim) const { return type().size_of(dim); }
  bool has(std::string_view dim) const { return type().has(dim); }
  DType dtype() const { return type().dtype; }
};

// Where an op was written: the caller of an op function, or the line of a Python script.
struct Source {
  std::string text;
  Source() = default;
  explicit Source(std::string text) : text(std::move(text)) {}
  static Source here(std::source_location location = std::source_location::current());
};

class Builder {
 public:
  explicit Builder(std::string name = "program") { program_.name = std::move(name); }
  explicit Builder(Program program) : program_(std::move(program)) {}
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  Tensor parameter(const std::string& name, Type type) { return add_input(name, InputKind::kParameter, std::move(type)); }
  Tensor input(const std::string& name, Type type) { return add_input(name, InputKind::kInput, std::move(type)); }
  Tensor state(const std::string& name, Type type) { return add_input(name, InputKind::kState, std::move(type)); }
  Tensor carried(const std::string& name, Type type) { return add_input(name, InputKind::kCarried, std::move(type)); }
  void output(const std::string& name, Tensor value, OutputKind kind = OutputKind::kResult);
  void write_state(const std::string& name, Tensor value) { output(name, value, OutputKind::kState); }

  // Appends one op; its type rule gives the results. A UserError of the rule is extended by scope and source line.
  std::vector<Tensor> append(const OpDef& def, const std::vector<Tensor>& operands, Attributes attributes, const Source& source);
  Tensor append1(const OpDef& def, const std::vector<Tensor>& operands, Attributes attributes, const Source& source) {
    return append(def, operands, std::move(attributes), source).at(0);
  }

  Tensor tensor(ValueId id) { return {this, id}; }
  const Program& program() const { return program_; }
  Program& program() { return program_; }
  Program take() { return std::move(program_); }

  // Scope, source and pass given to the ops that follow. set_scope replaces the whole path (a pass gives a derived op its
  // origin's scope); Scope below extends it.
  const std::string& scope() const { return scope_; }
  void set_scope(std::string scope) { scope_ = std::move(scope); }
  void set_source(std::string source) { fixed_source_ = std::move(source); }  // "" returns to the callers' own lines
  void set_pass(std::string_view pass) { pass_ = program_.intern_pass(pass); }
  // The scope and source line of `op`, an op of this or of another Program, for the ops that follow.
  void set_origin(const Program& program, const Op& op);

  // A dim name beyond the standard ones (ir/dim_names.h).
  void declare_dim(const std::string& name) { program_.own_dims.push_back(name); }
  void declare_dims_of(const Program& other) { program_.own_dims = other.own_dims; }

  // Called after each append with the index of the new op.
  std::function<void(const Program&, size_t op_index)> observer;

 private:
  Tensor add_input(const std::string& name, InputKind kind, Type type);
  bool is_new_input(const std::string& name);
  bool is_new_output(const std::string& name, OutputKind kind);
  void check_names(const Type& type) const;

  Program program_;
  std::unordered_set<std::string> input_names_, output_names_;  // of the Program, indexed as they are asked for
  std::string scope_;
  std::string fixed_source_;
  int32_t pass_ = 0;
};

// Extends the builder's scope by a dotted name while it lives.
class Scope {
 public:
  Scope(Builder& builder, std::string_view name) : builder_(builder), outer_(builder.scope()) {
    builder_.set_scope(outer_.empty() ? std::string(name) : outer_ + "." + std::string(name));
  }
  ~Scope() { builder_.set_scope(outer_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Builder& builder_;
  std::string outer_;
};

// What a gradient rule works with: the op's operands and results as tensors of the builder, the upstream gradient of each
// result (absent when nothing depends on it), and a place for the gradient of each operand.
struct GradientContext {
  Builder& builder;
  const Op& op;
  std::vector<Tensor> operands{};
  std::vector<Tensor> results{};
  std::vector<std::optional<Tensor>> upstream{};
  std::vector<bool> needed{};                      // operand i wants a gradient
  std::vector<std::optional<Tensor>> gradients{};  // filled by the rule
  // A tensor that takes the place of result i for all its readers: a fused op that makes results and gradients at once.
  std::vector<std::optional<Tensor>> replacements{};
  std::function<bool(Tensor)> depends_on_parameters{};  // false: known from the batch alone

  const Attributes& attributes() const { return op.attributes; }
  // FP32 where operand i is a parameter (gradients are accumulated in FP32), else the operand's dtype.
  DType gradient_dtype(size_t i) const;
};

}  // namespace mw
