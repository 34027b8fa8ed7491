// Programs traced in Python: the builder with the op functions, reading and running a Program.
#include "trace.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "arrays.h"
#include "base/error.h"
#include "bindings.h"
#include "exec/reference/evaluate.h"
#include "ops/registry.h"
#include "passes/differentiate.h"
#include "session/capture.h"
#include "session/program_runner.h"

namespace mw {
namespace {

py::list dims_list(const Type& type) {
  py::list dims;
  for (const Dim& dim : type.dims) dims.append(py::make_tuple(dim.name, dim.size));
  return dims;
}

py::tuple type_tuple(const Type& type) { return py::make_tuple(std::string(dtype_name(type.dtype)), dims_list(type)); }

HostArray host_array(const Type& type, const py::array& values) {
  const auto numbers = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(values);
  return {type, std::vector<double>(numbers.data(), numbers.data() + numbers.size())};
}

// float64 under the value's dims, whatever its dtype.
py::array host_values(const HostArray& array) {
  std::vector<py::ssize_t> shape;
  for (const Dim& dim : array.type.dims) shape.push_back(dim.size);
  py::array_t<double> values(shape);
  std::copy(array.data.begin(), array.data.end(), values.mutable_data());
  return values;
}

void bind_builder(py::module_& m) {
  py::class_<Trace>(m, "Trace")
      .def(py::init<const std::string&, bool, bool, const std::vector<std::string>&>(), py::arg("name"), py::arg("immediate"),
           py::arg("check_finite"), py::arg("dims"))
      .def("at", [](Trace& t, const std::string& source) { t.builder.set_source(source); })
      .def("scope", [](const Trace& t) { return t.builder.scope(); })
      .def("set_scope", [](Trace& t, const std::string& scope) { t.builder.set_scope(scope); })
      .def("declare", [](Trace& t, const std::string& dim) { t.builder.declare_dim(dim); })
      .def("input", [](Trace& t, const std::string& name, const std::string& dtype,
                       const TypeDims& dims) { return t.builder.input(name, make_type(dtype, dims)).id; })
      .def("given",
           [](Trace& t, const std::string& name, const std::string& dtype, const TypeDims& dims, const py::array& values) {
             const Type type = make_type(dtype, dims);
             const Tensor input = t.builder.input(name, type);
             t.evaluator.value().set_input(t.builder.program(), t.builder.program().inputs.back(), host_array(type, values));
             return input.id;
           })
      .def("output", [](Trace& t, const std::string& name, ValueId value) { t.builder.output(name, t.tensor(value)); })
      .def("type", [](const Trace& t, ValueId value) { return type_tuple(t.builder.program().type(value)); })
      .def("value", [](const Trace& t, ValueId value) { return host_values(t.evaluator.value().value(value)); })
      .def("finish", [](Trace& t) {
        Program program = t.builder.take();
        verify(program, "trace");
        return program;
      });
}

Program differentiated(Program program, const std::string& output, const std::vector<std::string>& inputs) {
  for (ProgramInput& input : program.inputs) {
    if (std::find(inputs.begin(), inputs.end(), input.name) != inputs.end()) input.kind = InputKind::kParameter;
  }
  Program gradients = differentiate(std::move(program), output, inputs);
  for (ProgramInput& input : gradients.inputs) input.kind = InputKind::kInput;
  return gradients;
}

void bind_program(py::module_& m) {
  py::class_<Program>(m, "Program")
      .def_property_readonly("name", [](const Program& p) { return p.name; })
      .def("to_text", &Program::to_text, py::arg("sources") = false)
      .def_static("parse", [](const std::string& text) { return parse_program(text, find_op); })
      .def("hash", &program_hash)
      .def("num_ops", [](const Program& p) { return p.ops.size(); })
      .def("inputs",
           [](const Program& p) {
             py::dict inputs;
             for (const ProgramInput& input : p.inputs) inputs[py::str(input.name)] = type_tuple(p.type(input.value));
             return inputs;
           })
      .def("outputs",
           [](const Program& p) {
             py::dict outputs;
             for (const ProgramOutput& output : p.outputs) outputs[py::str(output.name)] = type_tuple(p.type(output.value));
             return outputs;
           })
      .def("differentiate", &differentiated)
      .def("with_captures",
           [](Program p, const std::vector<std::string>& patterns) {
             add_captures(p, patterns);
             return p;
           })
      .def("run_reference", [](const Program& p, const py::dict& arrays, bool check_finite) {
        std::map<std::string, HostArray> inputs;
        for (const ProgramInput& input : p.inputs)
          inputs[input.name] = host_array(p.type(input.value), py::cast<py::array>(arrays[py::str(input.name)]));
        py::dict results;
        for (const auto& [name, array] : evaluate_reference(p, std::move(inputs), {.check_finite = check_finite}))
          results[py::str(name)] = host_values(array);
        return results;
      });
  py::class_<ProgramRunner>(m, "ProgramRunner")
      .def(py::init([](const Program& program, bool check_finite, int threads) {
             return std::make_unique<ProgramRunner>(program, ProgramRunnerOptions{.check_finite = check_finite, .threads = threads});
           }),
           py::arg("program"), py::arg("check_finite"), py::arg("threads"))
      .def("run", [](ProgramRunner& runner, const Program& program, const py::dict& arrays) {
        std::map<std::string, WholeArray> inputs;
        for (const ProgramInput& input : program.inputs) {
          const Type& type = program.type(input.value);
          const auto array = py::cast<py::array>(arrays[py::str(input.name)]);
          MW_CHECK((array.flags() & py::array::c_style) && array.nbytes() == type.bytes(), "'", input.name,
                   "' has another type or layout than its program says");
          inputs[input.name] = {type, array.data()};
        }
        {
          const py::gil_scoped_release unlocked;
          runner.run(inputs);
        }
        py::dict results;
        for (const Buffer& buffer : runner.results()) results[py::str(buffer.name)] = copy_array(buffer.type, runner.result(buffer.name));
        return results;
      });
}

}  // namespace

void bind_trace(py::module_& m) {
  bind_program(m);
  bind_builder(m);
  bind_trace_ops(m);
}

}  // namespace mw
