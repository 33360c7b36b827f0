// The memory that a network takes, known from its program before a weight is read.
#pragma once

#include <cstdint>

#include "network/operation.h"

namespace df::network {

// Bytes.
struct MemoryEstimate {
  int64_t weights = 0;      // packed, and constants that operations read as they are
  int64_t activations = 0;  // of one sample, with one row of its time, its condition and their pair
  int64_t workspace = 0;    // of the operation that needs most for one sample
};

// Throws std::invalid_argument for a program that cannot run.
MemoryEstimate estimate_memory(const Program& program, const Kernels& kernels, Precision precision);

}  // namespace df::network
