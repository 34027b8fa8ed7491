#include "arrays.h"

#include <cstring>

#include "base/error.h"

namespace mw {

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return py::dtype::of<float>();
    case DType::kF64:
      return py::dtype::of<double>();
    case DType::kI32:
      return py::dtype::of<int32_t>();
    case DType::kU8:
      return py::dtype::of<uint8_t>();
    case DType::kI8:
      return py::dtype::of<int8_t>();
    case DType::kBF16:
    case DType::kF16:
      return py::dtype::of<uint16_t>();  // the bits: NumPy has no bfloat16
  }
  throw InternalError("no NumPy dtype");
}

py::array copy_array(const Type& type, const std::byte* data) {
  std::vector<py::ssize_t> shape;
  for (const Dim& dim : type.dims) shape.push_back(dim.size);
  py::array array(numpy_dtype(type.dtype), shape);
  std::memcpy(array.mutable_data(), data, static_cast<size_t>(type.bytes()));
  return array;
}

}  // namespace mw
