// One row for contiguous float32 arrays, prepared once: the short path of a step, without a Stepper's tables.

#pragma once

#include <cstdint>

#include "step/cpu/kernels.h"

namespace df {

class SingleRow {
 public:
  SingleRow(const Kernel& kernel, const Row& row);

  // Whether the row reads x and output 0 and writes out, and nothing else: no register, variance or reduction.
  bool is_simple() const { return simple_; }

  // Applies a simple row to samples with the indices index, index + 1, ... out may be x; it must not overlap x or m otherwise.
  // Returns the first sample whose model output holds NaN or Inf, or -1.
  int64_t run(const float* x, const float* m, float* out, int64_t samples, int64_t elements, uint64_t seed, uint32_t index,
              uint32_t noise_row) const;

 private:
  const Kernel& kernel_;
  const PreparedRow row_;
  const bool simple_;
};

}  // namespace df
