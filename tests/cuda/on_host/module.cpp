// The bindings of the CUDA step over the host's device: the part of diffuse_fast._core that diffuse_fast/kernels/cuda.py uses.
#include <pybind11/pybind11.h>

#include "bindings/cuda.h"
#include "cuda_runtime.h"

PYBIND11_MODULE(_cuda_on_host, m) {
  bind_cuda(m);
  m.def("pretend", [](int driver, int count_code, int count, int capability) {
    on_host::driver = driver, on_host::count_code = count_code, on_host::count = count, on_host::capability = capability;
  });
  m.def("launches", [] { return on_host::launches; });
}
