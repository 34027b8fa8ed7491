#include "bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of Meshwright. The package `meshwright` is its typed, documented face.";
  mw::bind_base(module);
  mw::bind_ops(module);
  mw::bind_recording(module);
  mw::bind_model(module);
  mw::bind_checkpoint(module);
  mw::bind_weights(module);
  mw::bind_data(module);
  mw::bind_planner(module);
  mw::bind_trace(module);
  mw::bind_machine(module);
  mw::bind_ranks(module);
}
