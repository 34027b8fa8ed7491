// Planning ahead of time: what a training step will need.
#include <pybind11/stl.h>

#include "base/xxhash64.h"
#include "bindings.h"
#include "planner/choose_remat.h"
#include "planner/cluster_report.h"
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

py::list scope_bytes_list(const std::vector<ScopeBytes>& scopes) {
  py::list list;
  for (const ScopeBytes& s : scopes) list.append(py::dict(py::arg("scope") = s.scope, py::arg("bytes") = s.bytes));
  return list;
}

py::dict report_dict(const StepReport& report) {
  py::dict d;
  d["num_ranks"] = report.num_ranks;
  d["num_parameters"] = report.num_parameters;
  d["peak_bytes"] = report.memory.peak();
  d["host_bytes"] = report.memory.host;
  d["memory"] = memory_dict(report.memory);
  py::list collectives;
  d["activations"] = scope_bytes_list(report.activations);
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

py::dict piece_time_dict(const PieceTime& time) {
  py::list spans;
  for (const TimeSpan& span : time.spans) {
    spans.append(py::dict(py::arg("scope") = span.scope, py::arg("start") = span.start, py::arg("end") = span.end,
                          py::arg("transfer_seconds") = span.transfer_seconds));
  }
  py::list transfers;
  for (const LinkSpan& span : time.transfers)
    transfers.append(py::dict(py::arg("axes") = span.axes, py::arg("start") = span.start, py::arg("end") = span.end));
  return py::dict(py::arg("piece") = time.piece, py::arg("runs") = time.runs, py::arg("seconds") = time.seconds,
                  py::arg("flops_seconds") = time.flops_seconds, py::arg("bytes_seconds") = time.bytes_seconds,
                  py::arg("transfer_seconds") = time.transfer_seconds, py::arg("exposed_seconds") = time.exposed_seconds,
                  py::arg("exposed") = time.exposed, py::arg("spans") = spans, py::arg("transfers") = transfers);
}

py::dict time_dict(const StepTime& time) {
  py::list pieces;
  for (const PieceTime& piece : time.pieces) pieces.append(piece_time_dict(piece));
  return py::dict(py::arg("seconds") = time.seconds, py::arg("flops_seconds") = time.flops_seconds,
                  py::arg("bytes_seconds") = time.bytes_seconds, py::arg("transfer_seconds") = time.transfer_seconds,
                  py::arg("exposed_seconds") = time.exposed_seconds, py::arg("exposed") = time.exposed, py::arg("scopes") = time.scopes,
                  py::arg("gathered_ahead_bytes") = time.gathered_ahead, py::arg("pieces") = pieces);
}

EstimateSettings estimate_settings(const py::dict& fields) {
  return {.overlap = py::cast<bool>(fields["overlap"]),
          .dot_dtype = py::cast<std::string>(fields["dot_dtype"]),
          .expert_imbalance = py::cast<double>(fields["expert_imbalance"]),
          .tokens_cross_once = py::cast<bool>(fields["tokens_cross_once"]),
          .exact_stages = py::cast<bool>(fields["exact_stages"])};
}

py::dict piece_memory_dict(const PieceMemory& memory) {
  py::list samples;
  for (const MemorySample& s : memory.samples) {
    samples.append(py::dict(py::arg("scope") = s.scope, py::arg("seconds") = s.seconds, py::arg("scratch") = s.scratch,
                            py::arg("carried") = s.carried, py::arg("gradients") = s.gradients));
  }
  return py::dict(py::arg("piece") = memory.piece, py::arg("samples") = samples, py::arg("fullest_seconds") = memory.fullest_seconds,
                  py::arg("fullest") = scope_bytes_list(memory.fullest));
}

}  // namespace

void bind_planner(py::module_& m) {
  py::class_<Hardware>(m, "Hardware", "A chip and the network between chips: a file of configs/hardware.")
      .def(py::init([](const std::string& text, const std::string& source) { return parse_hardware(text, source); }), py::arg("text"),
           py::arg("source"))
      .def_readonly("name", &Hardware::name)
      .def_readonly("note", &Hardware::note)
      .def_readonly("kernels", &Hardware::kernels)
      .def_readonly("peak_flops", &Hardware::peak_flops)
      .def_readonly("memory_bytes", &Hardware::memory_bytes)
      .def_readonly("memory_bandwidth", &Hardware::memory_bandwidth)
      .def_readonly("flops_efficiency", &Hardware::flops_efficiency)
      .def_readonly("bandwidth_efficiency", &Hardware::bandwidth_efficiency)
      .def_property_readonly("network", [](const Hardware& hardware) {
        py::list levels;
        for (const NetworkLevel& level : hardware.network) {
          levels.append(py::dict(py::arg("name") = level.name, py::arg("chips") = level.chips, py::arg("bandwidth") = level.bandwidth,
                                 py::arg("latency") = level.latency));
        }
        return levels;
      });
  m.def("remat_candidates", &remat_candidates);
  m.def("remat_policies", &remat_policies);
  py::class_<TrainPlanSpec>(m, "TrainPlanSpec")
      .def(py::init([](const std::string& config, const std::string& dtype, const std::map<std::string, int64_t>& mesh,
                       const py::object& rules, const py::dict& optimizer, bool decay_embeddings, const std::string& remat,
                       int microbatches, const py::dict& losses, int64_t batch, int64_t seq, double factor, const std::string& reduced_in,
                       int64_t most_in_flight, const std::string& pipeline, int64_t interleave) {
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
                                .reduce_dtype = reduce_dtype(reduced_in),
                                .most_in_flight = most_in_flight,
                                .pipeline = parse_pipeline_order(pipeline),
                                .chunks = interleave,
                                .batch = batch,
                                .seq = seq};
             check_optimizer(spec.optimizer);
             check_model_config(spec.config);
             return spec;
           }),
           py::kw_only(), py::arg("config"), py::arg("dtype"), py::arg("mesh"), py::arg("rules"), py::arg("optimizer"),
           py::arg("decay_embeddings"), py::arg("remat"), py::arg("microbatches"), py::arg("losses"), py::arg("batch"), py::arg("seq"),
           py::arg("expert_rows_factor"), py::arg("reduce_dtype"), py::arg("most_in_flight"), py::arg("pipeline"), py::arg("interleave"))
      .def(
          "hash",
          [](const TrainPlanSpec& spec, const std::optional<Hardware>& hardware) {
            const BackendFacts backend = hardware ? backend_of(*hardware, spec.mesh) : cpu_backend(kernel_environment(spec.mesh));
            return hex16(plan_hash(plan_train_stages(spec, backend)));
          },
          py::arg("hardware") = py::none(), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("num_ranks", [](const TrainPlanSpec& spec) { return spec.mesh.size(); })
      .def("report",
           [](const TrainPlanSpec& spec) {
             StepReport report;
             {
               const py::gil_scoped_release unlocked;
               report = report_step(spec, plan_train_stages(spec, cpu_backend(kernel_environment(spec.mesh))));
             }
             return report_dict(report);
           })
      .def(
          "report_on",
          [](const TrainPlanSpec& spec, const Hardware& hardware, const py::dict& settings) {
            ClusterReport report;
            const EstimateSettings estimate = estimate_settings(settings);
            {
              const py::gil_scoped_release unlocked;
              report = report_on_cluster(spec, hardware, estimate);
            }
            py::dict d = report_dict(report.step);
            py::list memory;
            for (const PieceMemory& piece : report.memory) memory.append(piece_memory_dict(piece));
            d["memory_over_time"] = memory;
            d["time"] = time_dict(report.time);
            d["step_seconds"] = report.step_seconds;
            d["bubble_seconds"] = report.bubble_seconds;
            py::list stages_list;
            for (const StageFacts& s : report.stages) {
              stages_list.append(py::dict(py::arg("first") = s.first, py::arg("count") = s.count, py::arg("layers") = s.layers,
                                          py::arg("microbatches_in_flight") = s.microbatches_in_flight,
                                          py::arg("peak_bytes") = s.memory.peak(), py::arg("memory") = memory_dict(s.memory),
                                          py::arg("seconds") = s.seconds));
            }
            d["stages"] = stages_list;
            return d;
          },
          "report, and what the step takes on a chip: its time, and memory over it.", py::arg("hardware"), py::arg("settings"))
      .def(
          "explain",
          [](const TrainPlanSpec& spec, const std::string& after, const std::optional<Hardware>& hardware) {
            const BackendFacts backend = hardware ? backend_of(*hardware, spec.mesh) : cpu_backend(kernel_environment(spec.mesh));
            return explain_train_step(spec, backend, after);
          },
          py::arg("after"), py::arg("hardware") = py::none(), py::call_guard<py::gil_scoped_release>());
}

}  // namespace mw
