// SingleRow on NumPy arrays: the short path of df.step. It accepts only contiguous float32 arrays and leaves every other case
// (other dtypes, registers, a mask, tensors) to the general path, so that a call costs little beside the kernel.

#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "bindings/arguments.h"
#include "step/cpu/single_row.h"

namespace py = pybind11;
using namespace df::bindings;

namespace {

// Returned besides sample numbers and -1, which means that all samples are finite.
constexpr int64_t kNotSimple = -2;

// Release the GIL from this many elements on. Below it, releasing costs as much as the step.
constexpr int64_t kReleaseFrom = 32768;

struct Array {
  float* data;
  const Py_intptr_t* dimensions;
  int rank;
  int64_t size;
};

// Whether the object is a non-empty, C-contiguous, aligned float32 ndarray (and writeable, if asked). Sets `out` if it is.
bool simple_array(py::handle object, bool writeable, Array& out) {
  using Api = py::detail::npy_api;
  static const Api& api = Api::get();
  static PyObject* const float32 = py::dtype::of<float>().release().ptr();  // a singleton of NumPy
  if (Py_TYPE(object.ptr()) != api.PyArray_Type_) return false;
  const auto* array = py::detail::array_proxy(object.ptr());
  const int wanted = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | (writeable ? Api::NPY_ARRAY_WRITEABLE_ : 0);
  if (array->descr != float32 || (array->flags & wanted) != wanted || array->nd < 1) return false;
  int64_t size = 1;
  for (int i = 0; i < array->nd; ++i) size *= array->dimensions[i];
  out = {reinterpret_cast<float*>(array->data), array->dimensions, array->nd, size};
  return size != 0;
}

bool same_shape(const Array& a, const Array& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.dimensions[i] != b.dimensions[i]) return false;
  return true;
}

bool disjoint(const Array& a, const Array& b) { return a.data + a.size <= b.data || b.data + b.size <= a.data; }

int64_t run(const df::SingleRow& row, py::handle x, py::handle m, py::handle out, uint64_t seed, int64_t index, int64_t noise_row) {
  Array state, output, target;
  if (!row.is_simple() || !simple_array(x, false, state) || !simple_array(m, false, output) || !simple_array(out, true, target))
    return kNotSimple;
  if (!same_shape(state, output) || !same_shape(state, target)) return kNotSimple;
  if ((target.data != state.data && !disjoint(target, state)) || !disjoint(target, output)) return kNotSimple;
  const int64_t samples = state.dimensions[0];
  constexpr int64_t words = int64_t{1} << 32;
  if (index < 0 || index + samples > words || noise_row < 0 || noise_row >= words) return kNotSimple;
  const auto step = [&] {
    return row.run(state.data, output.data, target.data, samples, state.size / samples, seed, static_cast<uint32_t>(index),
                   static_cast<uint32_t>(noise_row));
  };
  if (state.size < kReleaseFrom) return step();
  py::gil_scoped_release release;
  return step();
}

}  // namespace

void bind_single_row(py::module_& m) {
  py::class_<df::SingleRow>(m, "SingleRow", "One row for contiguous float32 arrays.")
      .def(py::init([](const std::string& kernel, const py::buffer& rows) {
             const py::buffer_info info = rows.request();
             const auto table = rows_of(info);
             if (table.size() != 1) throw std::invalid_argument("rows must hold one row");
             return std::make_unique<df::SingleRow>(df::require_kernel(kernel.c_str()), table[0]);
           }),
           py::arg("kernel"), py::arg("rows"))
      .def("run", &run, py::arg("x"), py::arg("model_output"), py::arg("out"), py::arg("seed"), py::arg("index"),
           py::arg("noise_row"),
           "Apply the row. Return the first bad sample, -1 if there is none, or -2 if the case needs the general path.");
}
