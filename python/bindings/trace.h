// A Program while Python code appends ops to it; values are passed as ids.
#pragma once
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "exec/reference/evaluate.h"
#include "ir/builder.h"

namespace mw {
namespace py = pybind11;

struct Trace {
  Builder builder;
  std::optional<ReferenceEvaluator> evaluator;  // immediate mode: each op is evaluated as it is appended

  Trace(const std::string& name, bool immediate, bool check_finite, const std::vector<std::string>& dims) : builder(name) {
    for (const std::string& dim : dims) builder.declare_dim(dim);
    if (!immediate) return;
    evaluator.emplace(ReferenceOptions{.check_finite = check_finite});
    builder.observer = [this](const Program& program, size_t op) { evaluator->evaluate_op(program, op); };
  }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  Tensor tensor(ValueId id) { return builder.tensor(id); }
};

using TypeDims = std::vector<std::pair<std::string, int64_t>>;

inline Type make_type(const std::string& dtype, const TypeDims& dims) {
  Type type{parse_dtype(dtype), {}};
  for (const auto& [name, size] : dims) type.dims.push_back({name, size});
  return type;
}

// The op functions of cpp/ops as static methods.
struct TraceOps {};
void bind_trace_ops(py::module_& module);

}  // namespace mw
