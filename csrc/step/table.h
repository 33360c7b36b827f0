// A table of rows made ready for the buffers of one run: the checks that every implementation makes before it starts.

#pragma once

#include <cstdint>
#include <vector>

#include "step/step.h"

namespace df {

// Where the tensors of a run are. Samples are consecutive; null means the tensor is not there.
struct Buffers {
  const void* x = nullptr;
  void* out = nullptr;                    // may be x
  const void* outputs[kMaxOutputs] = {};  // network outputs
  int64_t output_stride = 0;              // elements from one sample of an output to the next
  int64_t output_count = 0;               // samples that the memory of an output holds
  int64_t variance_offset = -1;           // elements from a sample of output 0 to its variance channel, or -1
  float* registers = nullptr;             // (register_count, samples, elements)
  int register_count = 0;
  const float* y = nullptr;     // (samples, elements)
  const float* mask = nullptr;  // (samples, elements)
};

// Throws std::invalid_argument where a row needs a tensor that is not there, or a quantile that a sample does not have:
// after this no row can reach memory that is not the run's.
std::vector<ReadyRow> ready_table(const Row* rows, int64_t count, const Buffers& buffers);

}  // namespace df
