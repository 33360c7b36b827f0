// Prepares a plan's rows for the buffers of one run, with the checks that every implementation needs before it starts.

#pragma once

#include <cstdint>
#include <vector>

#include "step/step.h"

namespace df {

// The tensors of a run. Samples are consecutive; null means that the tensor is absent.
struct Buffers {
  const void* x = nullptr;
  void* out = nullptr;                    // may be x
  const void* outputs[kMaxOutputs] = {};  // network outputs
  int64_t output_stride = 0;              // elements from one sample of an output to the next
  int64_t output_count = 0;               // number of samples in the memory of an output
  int64_t variance_offset = -1;           // elements from a sample of output 0 to its variance channel, or -1
  float* registers = nullptr;             // (register_count, samples, elements)
  int register_count = 0;
  const float* y = nullptr;     // (samples, elements)
  const float* mask = nullptr;  // (samples, elements)
};

// Throws std::invalid_argument if a row needs a tensor that is absent or a quantile outside [0, 1]. After this check no row can
// access memory outside the run's buffers.
std::vector<PreparedRow> prepare_rows(const Row* rows, int64_t count, const Buffers& buffers);

}  // namespace df
