// The Python module: names, arguments, documentation. The work is done elsewhere in csrc.
#include <pybind11/pybind11.h>

#include "bindings/cuda.h"

namespace py = pybind11;

void bind_schedule(py::module_& m);
void bind_single_row(py::module_& m);
void bind_step(py::module_& m);

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of diffuse_fast: schedule math, the fused step, the noise.";
  m.attr("__version__") = DF_VERSION;
  bind_schedule(m);
  bind_single_row(m);
  bind_step(m);
  bind_cuda(m);
}
