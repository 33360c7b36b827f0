// Conversions of Python arguments that several bindings share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "step/prepared_rows.h"
#include "step/step.h"

namespace df::bindings {

using Seeds = pybind11::array_t<uint64_t, pybind11::array::c_style>;
using Indices = pybind11::array_t<uint32_t, pybind11::array::c_style>;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline DType dtype_named(const std::string& name) {
  if (name == "float32") return DType::kFloat32;
  if (name == "float16") return DType::kFloat16;
  if (name == "bfloat16") return DType::kBFloat16;
  throw std::invalid_argument("dtype is '" + name + "'; it must be float32, float16 or bfloat16");
}

// The rows of a NumPy array of dtype _core.ROW. They are valid as long as `info`.
inline std::span<const Row> rows_of(const pybind11::buffer_info& info) {
  if (info.ndim != 1 || info.itemsize != static_cast<pybind11::ssize_t>(sizeof(Row)) || info.strides[0] != info.itemsize)
    throw std::invalid_argument("rows must be a contiguous 1-D array of dtype ROW");
  return {static_cast<const Row*>(info.ptr), static_cast<size_t>(info.shape[0])};
}

inline void check_per_sample(pybind11::ssize_t size, int64_t samples, const char* name) {
  if (size != samples)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(size) + " entries; it must have one per sample (" +
                                std::to_string(samples) + ")");
}

// The noise keys: one seed and one index per sample.
inline void check_keys(const Seeds& seeds, const Indices& indices) {
  if (seeds.ndim() != 1 || indices.ndim() != 1) throw std::invalid_argument("seeds and indices must be 1-D");
  check_per_sample(indices.size(), seeds.size(), "indices");
}

inline Buffers buffers_of(uintptr_t x, uintptr_t out, const std::vector<uintptr_t>& outputs, int64_t output_stride,
                          int64_t variance_offset, uintptr_t registers, int register_count, uintptr_t y, uintptr_t mask) {
  if (outputs.size() > kMaxOutputs) throw std::invalid_argument("at most three network outputs are allowed");
  Buffers b;
  b.x = pointer<void>(x);
  b.out = pointer<void>(out);
  for (size_t j = 0; j < outputs.size(); ++j) b.outputs[j] = pointer<void>(outputs[j]);
  b.output_stride = output_stride;
  b.variance_offset = variance_offset;
  b.registers = pointer<float>(registers);
  b.register_count = register_count;
  b.y = pointer<float>(y);
  b.mask = pointer<float>(mask);
  return b;
}

}  // namespace df::bindings
