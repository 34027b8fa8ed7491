// Planning ahead of time: what a training step will need.
#include <pybind11/stl.h>

#include "bindings.h"
#include "planner/step_report.h"
#include "settings.h"

namespace mw {
namespace {

py::dict memory_dict(const StepMemory& m) {
  py::dict d;
  d["parameters"] = m.parameters;
  d["gradients"] = m.gradients;
  d["optimizer_state"] = m.optimizer_state;
  d["activations"] = m.activations;
  d["batch"] = m.batch;
  d["scratch"] = m.scratch;
  d["results"] = m.results;
  d["staging"] = m.staging;
  return d;
}

py::dict report_dict(const StepReport& report) {
  py::dict d;
  d["num_ranks"] = report.num_ranks;
  d["num_parameters"] = report.num_parameters;
  d["peak_bytes"] = report.memory.peak();
  d["memory"] = memory_dict(report.memory);
  py::list activations, collectives;
  for (const ScopeBytes& a : report.activations) activations.append(py::dict(py::arg("scope") = a.scope, py::arg("bytes") = a.bytes));
  d["activations"] = activations;
  d["expert_rows"] = py::dict(py::arg("mean") = report.expert_rows.mean, py::arg("bound") = report.expert_rows.bound,
                              py::arg("worst") = report.expert_rows.worst);
  d["model_flops"] = report.model_flops;
  d["executed_flops"] = report.executed_flops;
  d["traffic"] = traffic_list(report.traffic);
  for (const PlannedCollective& c : report.collectives) {
    collectives.append(py::dict(py::arg("piece") = c.piece, py::arg("collective") = c.op, py::arg("axes") = c.axes,
                                py::arg("type") = c.type, py::arg("calls") = c.calls, py::arg("bytes") = c.bytes_sent,
                                py::arg("recomputed") = c.recomputed, py::arg("scope") = c.scope, py::arg("source") = c.source));
  }
  d["collectives"] = collectives;
  return d;
}

}  // namespace

void bind_planner(py::module_& m) {
  py::class_<TrainPlanSpec>(m, "TrainPlanSpec")
      .def(py::init([](const std::string& config, const std::string& dtype, const std::map<std::string, int64_t>& mesh,
                       const py::object& rules, const py::dict& optimizer, bool decay_embeddings, const std::string& remat,
                       int microbatches, const py::dict& losses, int64_t batch, int64_t seq, double factor) {
             TrainPlanSpec spec{.config = config_from(config),
                                .dtype = compute_dtype(dtype),
                                .mesh = make_mesh(mesh),
                                .rules = make_rules(rules),
                                .optimizer = optimizer_config(optimizer),
                                .decay_embeddings = decay_embeddings,
                                .remat = parse_remat(remat),
                                .microbatches = microbatches,
                                .expert_rows_factor = expert_rows_factor(factor),
                                .losses = loss_terms(losses),
                                .batch = batch,
                                .seq = seq};
             check_optimizer(spec.optimizer);
             check_model_config(spec.config);
             return spec;
           }),
           py::kw_only(), py::arg("config"), py::arg("dtype"), py::arg("mesh"), py::arg("rules"), py::arg("optimizer"),
           py::arg("decay_embeddings"), py::arg("remat"), py::arg("microbatches"), py::arg("losses"), py::arg("batch"), py::arg("seq"),
           py::arg("expert_rows_factor"))
      .def("report",
           [](const TrainPlanSpec& spec) {
             StepReport report;
             {
               const py::gil_scoped_release unlocked;
               report = report_step(spec, plan_train_step(spec, kernel_environment(spec.mesh)));
             }
             return report_dict(report);
           })
      .def(
          "explain",
          [](const TrainPlanSpec& spec, const std::string& after) {
            return explain_train_step(spec, kernel_environment(spec.mesh), after);
          },
          py::call_guard<py::gil_scoped_release>());
}

}  // namespace mw
