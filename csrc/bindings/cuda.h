#pragma once

#include <pybind11/pybind11.h>

// The CUDA step, device memory and streams. In a build without CUDA every call raises an error that says so.
void bind_cuda(pybind11::module_& m);
