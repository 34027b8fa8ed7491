#include <pybind11/stl.h>

#include <cstring>

#include "base/error.h"
#include "base/printable.h"
#include "bindings.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/folder.h"
#include "checkpoint/safetensors_writer.h"

namespace mw {
namespace {

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

TensorFolder open_any(const std::string& path, const std::string& stem) {
  return path.ends_with(".safetensors") ? TensorFolder::open_file(path) : TensorFolder::open(path, stem);
}

py::list list_tensors(const std::string& path, const std::string& stem) {
  const TensorFolder folder = open_any(path, stem);
  py::list tensors;
  for (const std::string& name : folder.names()) {
    const StoredTensor& tensor = folder.tensor(name);
    py::dict row;
    row["name"] = name;
    row["dtype"] = tensor.dtype;
    row["shape"] = py::tuple(py::cast(tensor.shape));
    row["bytes"] = tensor.num_bytes();
    row["file"] = file_name(folder.file_of(name).path());
    tensors.append(std::move(row));
  }
  return tensors;
}

py::bytes read_tensor(const std::string& path, const std::string& name, const std::string& stem) {
  const TensorFolder folder = open_any(path, stem);
  const std::span<const std::byte> bytes = folder.file_of(name).bytes(folder.tensor(name));
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void write_safetensors(const std::string& path, const std::vector<std::tuple<std::string, std::string, Shape, py::bytes>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  std::map<std::string, std::string_view> data;
  for (const auto& [name, dtype, shape, bytes] : tensors) {
    specs.push_back({name, parse_dtype(dtype), shape});
    for (const int64_t size : shape) {
      if (size < 0) throw UserError("tensor " + in_quotes(name) + " has a negative dim: " + shape_text(shape));
    }
    data[name] = std::string_view(bytes);
    if (static_cast<int64_t>(data[name].size()) != specs.back().num_bytes()) {
      throw UserError(concat_text("tensor ", in_quotes(name), ": ", dtype, shape_text(shape), " needs ", specs.back().num_bytes(),
                                  " bytes, found ", data[name].size()));
    }
  }
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const TensorSpec& tensor : writer.tensors()) writer.write(std::as_bytes(std::span(data.at(tensor.name))));
  writer.finish();
}

py::dict newest_checkpoint(const std::string& folder) {
  NewestValid newest;
  {
    const py::gil_scoped_release released;
    newest = newest_valid(folder);
  }
  py::dict found;
  found["path"] = newest.checkpoint ? py::object(py::str(newest.checkpoint->path)) : py::none();
  found["step"] = newest.checkpoint ? py::object(py::int_(newest.checkpoint->step)) : py::none();
  found["skipped"] = newest.skipped;
  return found;
}

}  // namespace

void bind_checkpoint(py::module_& module) {
  module.def("list_tensors", &list_tensors, py::arg("path"), py::arg("stem") = "model",
             "Tensors of a Hugging Face folder or one .safetensors file, sorted by name: name, dtype as stored, shape, bytes, file.");
  module.def("read_tensor_bytes", &read_tensor, py::arg("path"), py::arg("name"), py::arg("stem") = "model",
             "The stored bytes of one tensor, row-major and little-endian.");
  module.def("write_safetensors", &write_safetensors, py::arg("path"), py::arg("tensors"),
             py::arg("metadata") = std::map<std::string, std::string>{{"format", "pt"}},
             "Writes (name, dtype, shape, bytes) tuples as one safetensors file.");
  module.def("newest_checkpoint", &newest_checkpoint, py::arg("folder"),
             "The newest whole checkpoint of a run's folder: path and step (None when there is none) and, for each newer one that is not "
             "whole, which file is wrong and why.");
  module.def(
      "checkpoint_problem", [](const std::string& folder) { return problem_with(folder); }, py::arg("folder"),
      py::call_guard<py::gil_scoped_release>(), "Why a folder is not a whole checkpoint, or None.");
}

}  // namespace mw
