// The forward process: the noised data that training feeds to a network, and its target, in one pass over clean data.
//
//   x_t    = alpha * x0 + sigma * z
//   target = target_x0 * x0 + target_z * z          z ~ N(0, 1) of stream 3, or given
//
// Every prediction type's target is such a sum (epsilon: 0, 1; v: -sigma, alpha; flow: -1, 1). 12 bytes per element.
// The arithmetic is that of step.h: float32; the first term present is a product, a later one a fused multiply-add; a term
// whose coefficient is exactly 0 is skipped.

#pragma once

#include <cstdint>

namespace df {

// The memory of a batch: contiguous, float32, with one coefficient of each kind per sample.
struct Forward {
  const float* x0;
  const float* noise;  // given normals, or null to draw them
  float* x_t;
  float* target;  // may be null
  const float *alpha, *sigma, *target_x0, *target_z;
  const uint32_t* index;  // sample indices; null if the noise is given
  uint64_t seed;
  uint32_t row;  // number of the training step: the second counter word
  int64_t elements;
};

}  // namespace df
