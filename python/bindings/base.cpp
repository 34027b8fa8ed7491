#include "base/error.h"
#include "bindings.h"

namespace mw {

void bind_base(py::module_& module) {
  py::register_exception<UserError>(module, "UserError", PyExc_ValueError);
  py::register_exception<InternalError>(module, "InternalError", PyExc_RuntimeError);
}

}  // namespace mw
