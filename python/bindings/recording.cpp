// What recorded optimizer steps were spent on.
#include "train/recording.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>

#include "bindings.h"

namespace mw {
namespace {

py::list work_list(const Recording& recording) {
  py::list list;
  for (const RecordedWork& work : recording.work()) {
    py::list letters;
    for (const RecordedWork::Letter& letter : work.letters) letters.append(py::make_tuple(letter.name, letter.peer, letter.bytes));
    list.append(py::dict(py::arg("kind") = work.kind, py::arg("piece") = work.piece, py::arg("name") = work.name,
                         py::arg("scope") = work.scope, py::arg("types") = work.types, py::arg("kernel") = work.kernel,
                         py::arg("dtype") = work.dtype, py::arg("flops") = work.flops, py::arg("bytes") = work.bytes,
                         py::arg("sent") = work.sent, py::arg("letters") = letters, py::arg("source") = work.source,
                         py::arg("pass") = work.pass));
  }
  return list;
}

py::array_t<int64_t> slice_array(const Recording& recording) {
  const std::vector<RecordedSlice>& slices = recording.slices();
  static_assert(sizeof(RecordedSlice) == 7 * sizeof(int64_t));
  py::array_t<int64_t> array({std::ssize(slices), py::ssize_t{7}});
  std::memcpy(array.mutable_data(), slices.data(), slices.size() * sizeof(RecordedSlice));
  return array;
}

}  // namespace

void bind_recording(py::module_& module) {
  py::class_<Recording>(module, "Recording")
      .def(py::init<>())
      .def_property_readonly("work", &work_list)
      // [slices, 7]: work, rank, step, row, microbatch, begin, end
      .def_property_readonly("slices", &slice_array)
      .def_property_readonly("places", &Recording::places)
      .def_property_readonly("threads_per_rank", &Recording::threads_per_rank);
}

}  // namespace mw
