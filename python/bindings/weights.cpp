// Weights of any published format (checkpoint/open_weights.h) and what a GGUF file says beside them.
#include <pybind11/stl.h>

#include <nlohmann/json.hpp>

#include "arrays.h"
#include "base/error.h"
#include "base/printable.h"
#include "bindings.h"
#include "checkpoint/dequantized.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/open_weights.h"

namespace mw {
namespace {

py::list list_weights(const std::string& path) {
  const std::unique_ptr<TensorSource> source = open_weights(path);
  py::list rows;
  for (const std::string& name : source->names()) {
    const TensorInfo info = source->info(name);
    py::dict row;
    row["name"] = name;
    row["stored"] = info.stored;
    row["dtype"] = info.reads_as ? py::object(py::str(std::string(dtype_name(*info.reads_as)))) : py::none();
    row["shape"] = py::tuple(py::cast(info.shape));
    rows.append(std::move(row));
  }
  return rows;
}

py::array read_tensor(const std::string& path, const std::string& name, const std::string& dtype, const std::optional<Shape>& begin,
                      const std::optional<Shape>& end) {
  const DType as = parse_dtype(dtype);
  const std::unique_ptr<TensorSource> source = open_weights(path);
  Slice slice = whole(source->info(name).shape);
  const Shape shape = slice.end;
  if (begin) slice.begin = *begin;
  if (end) slice.end = *end;
  check_slice(name, shape, slice);
  std::vector<py::ssize_t> sizes;
  for (size_t d = 0; d < shape.size(); ++d) sizes.push_back(static_cast<py::ssize_t>(slice.end[d] - slice.begin[d]));
  py::array array(numpy_dtype(as), sizes);
  void* data = array.mutable_data();
  const py::gil_scoped_release released;
  source->read(name, slice, as, data);
  return array;
}

std::vector<std::string> stored_parts(const std::string& path, const std::string& name) {
  const std::unique_ptr<TensorSource> source = open_weights(path);
  const auto* folder = dynamic_cast<const DequantizedFolder*>(source.get());
  if (!folder) throw UserError(printable(path, 1000) + ": expected safetensors files, whose stored tensors can be copied");
  return folder->stored_parts(name);
}

py::object python_value(const GgufValue& value) {
  if (value.type != GgufValueType::kArray)
    return std::visit([](const auto& scalar) -> py::object { return py::cast(scalar); }, value.scalar);
  if (value.array.type == GgufValueType::kString) {
    py::list strings(value.array.count);
    size_t i = 0;
    for (const std::string_view text : value.array.strings()) strings[i++] = py::str(text.data(), text.size());
    return strings;
  }
  if (value.array.type == GgufValueType::kF32 || value.array.type == GgufValueType::kF64) return py::cast(value.array.numbers());
  const std::vector<int64_t> integers = value.array.integers();
  if (value.array.type != GgufValueType::kBool) return py::cast(integers);
  return py::cast(std::vector<bool>(integers.begin(), integers.end()));
}

py::dict gguf_metadata(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  py::dict metadata;
  for (const auto& [key, value] : file.header().metadata) metadata[py::str(key)] = python_value(value);
  return metadata;
}

}  // namespace

void bind_weights(py::module_& module) {
  module.def("list_weights", &list_weights, py::arg("path"),
             "Tensors of a Hugging Face folder, a .safetensors or a .gguf file under their Hugging Face names, sorted: name, stored (its "
             "encoding in the file), dtype (its own, bf16 where it is quantised, None where we have none for it) and shape.");
  module.def("read_tensor", &read_tensor, py::arg("path"), py::arg("name"), py::arg("dtype"), py::arg("begin") = py::none(),
             py::arg("end") = py::none(),
             "A tensor of list_weights or its slice [begin, end), decoded; bf16 and f16 as the uint16 of their bits.");
  module.def("stored_parts", &stored_parts, py::arg("path"), py::arg("name"),
             "Names of the tensors in a folder's files behind a name of list_weights: more than one where it is stored quantised.");
  module.def("gguf_metadata", &gguf_metadata, py::arg("path"), "The metadata of a GGUF file: keys as they stand there, arrays as lists.");
  module.def(
      "gguf_config", [](const std::string& path) { return gguf_config(GgufFiles::open(path)).dump(); }, py::arg("path"),
      py::call_guard<py::gil_scoped_release>(), "The config.json, as text, that Hugging Face has for the model of a GGUF file.");
}

}  // namespace mw
