// One row on plain float32 NumPy arrays, for df.step: what a call costs beside the kernel is here, so there is little of it.
// Whatever is not plain (another dtype, registers, a mask, a tensor) is told apart, and left to the general path.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "step/kernels.h"

namespace py = pybind11;

namespace {

constexpr int64_t kNotPlain = -2, kAllGood = -1;

// Elements from which another thread is let run meanwhile: below, handing over the interpreter costs as much as the step.
constexpr int64_t kReleaseFrom = 32768;

struct Plain {
  char* data;
  const Py_intptr_t* dimensions;
  int rank;
  int64_t bytes;
};

// Where the array lies, if it is a C-contiguous, aligned float32 ndarray (writeable, if asked); else false.
bool plain(py::handle object, bool writeable, Plain& out) {
  using Api = py::detail::npy_api;
  static const Api& api = Api::get();
  static PyObject* const float32 = py::dtype::of<float>().release().ptr();  // a singleton of NumPy
  if (Py_TYPE(object.ptr()) != api.PyArray_Type_) return false;
  const auto* array = py::detail::array_proxy(object.ptr());
  const int wanted = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | (writeable ? Api::NPY_ARRAY_WRITEABLE_ : 0);
  if (array->descr != float32 || (array->flags & wanted) != wanted || array->nd < 1) return false;
  int64_t size = 4;
  for (int i = 0; i < array->nd; ++i) size *= array->dimensions[i];
  out = {array->data, array->dimensions, array->nd, size};
  return size != 0;
}

bool same_shape(const Plain& a, const Plain& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.dimensions[i] != b.dimensions[i]) return false;
  return true;
}

bool disjoint(const Plain& a, const Plain& b) { return a.data + a.bytes <= b.data || b.data + b.bytes <= a.data; }

class SingleRow {
 public:
  SingleRow(const std::string& kernel, const py::buffer& row) : kernel_(df::find_kernel(kernel.c_str())) {
    const py::buffer_info info = row.request();
    if (kernel_ == nullptr || kernel_->unavailable() != nullptr) throw std::invalid_argument("kernel '" + kernel + "' cannot run");
    if (info.size != 1 || info.itemsize != static_cast<py::ssize_t>(sizeof(df::Row)))
      throw std::invalid_argument("one row record is wanted");
    row_ = df::ready(*static_cast<const df::Row*>(info.ptr));
    constexpr uint32_t more = df::kG1 | df::kG2 | df::kHistory | df::kWrite | df::kLearnedS;
    plain_ = row_.row.reduce == static_cast<int32_t>(df::Reduce::kNone) && (row_.terms & df::kG0) && !(row_.terms & more);
  }

  int64_t run(py::handle x, py::handle m, py::handle out, uint64_t seed, int64_t index, int64_t noise_row) {
    Plain state, output, target;
    if (!plain_ || !plain(x, false, state) || !plain(m, false, output) || !plain(out, true, target)) return kNotPlain;
    if (!same_shape(state, output) || !same_shape(state, target)) return kNotPlain;
    if ((target.data != state.data && !disjoint(target, state)) || !disjoint(target, output)) return kNotPlain;
    const int64_t count = state.dimensions[0], elements = state.bytes / 4 / count;
    constexpr int64_t words = int64_t{1} << 32;
    if (index < 0 || index + count > words || noise_row < 0 || noise_row >= words) return kNotPlain;
    std::vector<df::Sample> samples(static_cast<size_t>(count));
    std::vector<uint8_t> bad(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      df::Sample& s = samples[static_cast<size_t>(i)];
      s.row = &row_;
      s.x = state.data + i * elements * 4;
      s.m[0] = output.data + i * elements * 4;
      s.out = target.data + i * elements * 4;
      s.seed = seed;
      s.index = static_cast<uint32_t>(index + i);
      s.noise_row = static_cast<uint32_t>(noise_row);
    }
    const df::Call call{samples.data(), count, elements, 0, df::DType::kFloat32, df::DType::kFloat32, bad.data()};
    if (state.bytes / 4 < kReleaseFrom) {
      df::run_step(*kernel_, call);
    } else {
      py::gil_scoped_release release;
      df::run_step(*kernel_, call);
    }
    const auto first = std::find(bad.begin(), bad.end(), uint8_t{1});
    return first == bad.end() ? kAllGood : first - bad.begin();
  }

 private:
  const df::Kernel* kernel_;
  df::ReadyRow row_;
  bool plain_;
};

}  // namespace

void bind_single_row(py::module_& m) {
  py::class_<SingleRow>(m, "SingleRow", "One row, ready for plain float32 arrays.")
      .def(py::init<const std::string&, const py::buffer&>(), py::arg("kernel"), py::arg("row"))
      .def("run", &SingleRow::run, py::arg("x"), py::arg("model_output"), py::arg("out"), py::arg("seed"), py::arg("index"),
           py::arg("noise_row"),
           "Apply the row: the first bad sample, -1 where there is none, or -2: nothing was done, this is not a plain case.");
  m.def(
      "environment",
      [](const char* name) -> std::optional<std::string> {
        const char* value = std::getenv(name);
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
      },
      py::arg("name"), "A variable of the process's environment, in a fifth of the time of os.environ.");
}
