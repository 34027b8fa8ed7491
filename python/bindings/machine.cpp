// What this machine can do: instruction sets, measured peaks, timing of kernels.
#include <pybind11/stl.h>

#include "bindings.h"
#include "exec/cpu/peak.h"
#include "exec/cpu/timing.h"
#include "planner/kernels_in_use.h"
#include "planner/train_plan.h"

namespace mw {
namespace {

py::dict machine_facts() {
  py::dict facts;
  std::vector<std::string> isas;
  for (const Isa isa : available_isas()) isas.emplace_back(isa_name(isa));
  facts["isa"] = std::string(isa_name(chosen_isa()));
  facts["available_isas"] = isas;
  facts["usable_processors"] = usable_processors();
  return facts;
}

py::dict peak_flops(int threads) {
  double f32 = 0, bf16 = 0;
  {
    const py::gil_scoped_release unlocked;
    ThreadPool pool(threads);
    f32 = measure_fma_peak(chosen_isa(), pool);
    bf16 = measure_bf16_peak(chosen_isa(), pool);
  }
  return py::dict(py::arg("float32") = f32, py::arg("bfloat16") = bf16);
}

py::dict op_timing(const Program& program, const std::string& op, int threads, int64_t int_below) {
  cpu::OpTiming timing;
  {
    const py::gil_scoped_release unlocked;
    ThreadPool pool(threads);
    timing = cpu::time_op(program, op, {.isa = chosen_isa(), .threads = pool.threads()}, pool, int_below);
  }
  return py::dict(py::arg("seconds") = timing.seconds, py::arg("runs") = timing.runs, py::arg("flops") = timing.cost.flops,
                  py::arg("bytes") = timing.cost.bytes, py::arg("kernel") = timing.kernel);
}

py::object openblas_timing(int64_t m, int64_t n, int64_t k, int threads) {
  const OpenBlas* blas = find_openblas();
  if (blas == nullptr) return py::none();
  ThreadPool pool(threads);
  return py::dict(py::arg("path") = blas->path, py::arg("config") = blas->config,
                  py::arg("seconds") = cpu::time_openblas(*blas, m, n, k, pool));
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("machine_facts", &machine_facts);
  m.def("measure_peak_flops", &peak_flops);
  m.def(
      "measure_read_bandwidth",
      [](int threads, int64_t bytes) {
        const py::gil_scoped_release unlocked;
        ThreadPool pool(threads);
        return measure_read_bandwidth(pool, bytes);
      },
      py::arg("threads"), py::arg("bytes") = int64_t{512} << 20);
  m.def("time_op", &op_timing, py::arg("program"), py::arg("op"), py::arg("threads"), py::arg("int_below"));
  m.def("time_openblas", &openblas_timing);
  m.def("kernels_in_use", [](const TrainPlanSpec& spec) {
    const cpu::KernelEnvironment environment = kernel_environment(spec.mesh);
    return kernels_in_use(plan_train_step(spec, environment), environment);
  });
}

}  // namespace mw
