#pragma once

#include <pybind11/pybind11.h>

// The CUDA step, device memory and streams. Also in a build without CUDA: there, all of it says so.
void bind_cuda(pybind11::module_& m);
