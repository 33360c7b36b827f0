// The bindings of the CUDA step on the emulated device: the part of diffuse_fast._core that diffuse_fast/kernels/cuda.py uses.
#include <pybind11/pybind11.h>

#include "bindings/cuda.h"
#include "cuda_runtime.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda_on_host, m) {
  bind_cuda(m);
  m.def("pretend", [](int driver, int count_code, int count, int capability) {
    on_host::driver = driver, on_host::count_code = count_code, on_host::count = count, on_host::capability = capability;
  });
  m.def("launches", [] { return on_host::launches; }, "Kernels that were run.");
  m.def(
      "devices", [] { return py::make_tuple(on_host::current, on_host::launched_on); },
      "This thread's device, and that of the last launch.");
  m.def(
      "started",
      [] {
        py::list out;
        for (const int device : on_host::started) out.append(device);
        on_host::started.clear();
        return out;
      },
      "Devices that something started since the last call.");
  m.def("finish", &on_host::finish, "Do all that is queued.");
  m.def(
      "waits",
      [] {
        py::list out;
        for (const auto& [waiting, after] : on_host::waits) out.append(py::make_tuple(waiting, after));
        on_host::waits.clear();
        return out;
      },
      "(waiting, after) of streams since the last call.");

  py::class_<on_host::Tape>(m, "Tape", "What was launched while captured.")
      .def("replay", &on_host::replay)
      .def("__len__", &on_host::Tape::size);
  m.def("begin_capture", &on_host::begin_capture);
  m.def("end_capture", &on_host::end_capture, "A Tape, or None where something was done that cannot be captured.");
}
