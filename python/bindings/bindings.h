// One function per room; module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace mw {
namespace py = pybind11;

void bind_base(py::module_& module);
void bind_ops(py::module_& module);
void bind_recording(py::module_& module);
void bind_model(py::module_& module);
void bind_checkpoint(py::module_& module);
void bind_weights(py::module_& module);
void bind_data(py::module_& module);
void bind_planner(py::module_& module);
void bind_machine(py::module_& module);
void bind_trace(py::module_& module);
void bind_ranks(py::module_& module);

}  // namespace mw
