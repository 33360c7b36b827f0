#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "step/cuda/device_step.h"

// A DLPack capsule of a contiguous array in the memory, which it keeps alive.
pybind11::capsule to_dlpack(const std::shared_ptr<df::cuda::Memory>& memory, std::vector<int64_t> shape, uint8_t code,
                            uint8_t bits);

// The contents of another library's capsule: (memory, device type, shape, strides or None, code, bits, lanes). The memory keeps
// the other library's array alive.
pybind11::tuple from_dlpack(const pybind11::object& capsule);
