// The Python module. The bindings only convert and document arguments; the work is done elsewhere in csrc.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "bindings/cuda.h"

namespace py = pybind11;

void bind_loop(py::module_& m);
void bind_network(py::module_& m);
void bind_schedule(py::module_& m);
void bind_single_row(py::module_& m);
void bind_step(py::module_& m);

// pybind11 keeps its state in the process's first interpreter and would deadlock when imported by a subinterpreter. So Python
// calls a function of our own, which refuses subinterpreters.
#define PyInit__core init_core
PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of diffuse_fast: schedule math, the fused step, the noise.";
  m.attr("__version__") = DF_VERSION;
  m.def(
      "environment",
      [](const char* name) -> std::optional<std::string> {
        const char* value = std::getenv(name);
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
      },
      py::arg("name"), "An environment variable, or None. Five times as fast as os.environ.");
  bind_network(m);
  bind_loop(m);
  bind_schedule(m);
  bind_single_row(m);
  bind_step(m);
  bind_cuda(m);
}
#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return init_core();
  PyObject* const errors = PyImport_ImportModule("diffuse_fast.errors");
  PyObject* const error = errors == nullptr ? nullptr : PyObject_GetAttrString(errors, "UnavailableError");
  if (error != nullptr)
    PyErr_SetString(error,
                    "diffuse_fast runs in the first interpreter of a process only, and this is a subinterpreter; import it in the "
                    "first one, or in a process of its own.");
  Py_XDECREF(error);
  Py_XDECREF(errors);
  return nullptr;
}
