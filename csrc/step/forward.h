// The forward process: what training feeds to a network, made in one pass from clean data.
//
//   x_t    = alpha * x0 + sigma * z
//   target = target_x0 * x0 + target_z * z          z ~ N(0, 1) of stream 3, or given
//
// Every prediction type's target is such a sum (epsilon: 0, 1; v: -sigma, alpha; flow: -1, 1). 12 bytes per element.
// The arithmetic is step.h's: float32, a sum's first term present a product, the later one a fused multiply-add onto it, a
// term whose coefficient is exactly 0 is not there.

#pragma once

#include <cstdint>

#include "step/kernels.h"

namespace df {

// The memory of a batch, contiguous, float32; one coefficient of each kind per sample.
struct Forward {
  const float* x0;
  const float* noise;  // given normals, or null: the generator's
  float* x_t;
  float* target;  // may be null
  const float *alpha, *sigma, *target_x0, *target_z;
  const uint32_t* index;  // of each sample; null where the noise is given
  uint64_t seed;
  uint32_t row;  // number of the training step: the second counter word
  int64_t elements;
};

// All samples of the batch, on the pool.
void run_forward(const Kernel& kernel, const Forward& what, int64_t count);

}  // namespace df
