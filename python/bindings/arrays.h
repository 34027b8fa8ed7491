// NumPy arrays of our types.
#pragma once
#include <pybind11/numpy.h>

#include "ir/type.h"

namespace mw {
namespace py = pybind11;

py::dtype numpy_dtype(DType dtype);  // bf16 and f16: uint16, their bits
py::array copy_array(const Type& type, const std::byte* data);

}  // namespace mw
