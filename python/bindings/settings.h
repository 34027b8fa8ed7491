// The settings that Python hands over, as the core's structs.
#pragma once
#include <pybind11/pybind11.h>

#include <map>
#include <string>

#include "models/programs.h"
#include "optim/optimizer.h"
#include "planner/step_report.h"
#include "session/session.h"

namespace mw {
namespace py = pybind11;

ModelConfig config_from(const std::string& text);
// "float32" or "bfloat16"; UserError for a dtype that cannot be computed in.
DType compute_dtype(const std::string& name);
Mesh make_mesh(const std::map<std::string, int64_t>& axes);
// None, or a dict of four tables of rows.
Rules make_rules(const py::object& rules);
SessionOptions session_options(const std::string& dtype, const std::map<std::string, int64_t>& mesh, const py::object& rules, int threads);
DType reduce_dtype(const std::string& name);
// UserError below 1: even choices alone need the mean.
double expert_rows_factor(double factor);
OptimizerConfig optimizer_config(const py::dict& fields);
// The fields of meshwright.Losses.
LossTerms loss_terms(const py::dict& fields);
// Collectives as the fields of PlanReport.traffic.
py::list traffic_list(const std::vector<AxisTraffic>& traffic);

}  // namespace mw
