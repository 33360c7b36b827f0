// The Python module: names, arguments, documentation. The work is done elsewhere in csrc.
#include <pybind11/pybind11.h>

#include "bindings/cuda.h"

namespace py = pybind11;

void bind_schedule(py::module_& m);
void bind_single_row(py::module_& m);
void bind_step(py::module_& m);

// pybind11 would wait for ever for the lock of the interpreter in one that is not the process's first: its state is the first's. So
// the function that Python calls is our own, and asks before.
#define PyInit__core init_core
PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of diffuse_fast: schedule math, the fused step, the noise.";
  m.attr("__version__") = DF_VERSION;
  bind_schedule(m);
  bind_single_row(m);
  bind_step(m);
  bind_cuda(m);
}
#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return init_core();
  PyObject* const errors = PyImport_ImportModule("diffuse_fast.errors");
  PyObject* const error = errors == nullptr ? nullptr : PyObject_GetAttrString(errors, "RuntimeUnavailableError");
  if (error != nullptr)
    PyErr_SetString(error,
                    "diffuse_fast runs in the first interpreter of a process only, and this is a subinterpreter; import it in the "
                    "first one, or in a process of its own.");
  Py_XDECREF(error);
  Py_XDECREF(errors);
  return nullptr;
}
