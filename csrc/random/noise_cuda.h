// Normals in a CUDA thread: what the step draws for its N consecutive elements.

#pragma once

#include <cstdint>

#include "random/normal.h"
#include "random/philox.h"
#include "simd/vector_cuda.h"

namespace df {
namespace {

// The four words of the counter that `element` belongs to.
DF_INLINE void cuda_words(uint64_t (&words)[4], uint64_t seed, uint64_t element, uint32_t row, uint32_t index, uint32_t stream) {
  words[0] = element / 4, words[1] = row, words[2] = index, words[3] = stream;
  philox4x32_10<CudaLane>(words, PhiloxKeys(seed));
}

// The normals of N elements from the logical index `element` on: a multiple of four, or any index if N is 1.
template <int N>
DF_INLINE typename CudaVector<N>::F cuda_normals(uint64_t seed, uint64_t element, uint32_t row, uint32_t index, uint32_t stream) {
  typename CudaVector<N>::F z;
  uint64_t words[4];
  if constexpr (N == 1) {
    cuda_words(words, seed, element, row, index, stream);
    const bool second_pair = (element & 2) != 0;
    const float radius = normal_radius<CudaLane>(static_cast<int32_t>(second_pair ? words[2] : words[0]));
    float first, second;
    normal_direction<CudaLane>(static_cast<int32_t>(second_pair ? words[3] : words[1]), first, second);
    z.v[0] = CudaLane::mul_f(radius, (element & 1) != 0 ? second : first);
  } else {
#pragma unroll
    for (int counter = 0; counter < N / 4; ++counter) {
      cuda_words(words, seed, element + static_cast<uint64_t>(4 * counter), row, index, stream);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const float radius = normal_radius<CudaLane>(static_cast<int32_t>(words[2 * pair]));
        float first, second;
        normal_direction<CudaLane>(static_cast<int32_t>(words[2 * pair + 1]), first, second);
        z.v[4 * counter + 2 * pair] = CudaLane::mul_f(radius, first);
        z.v[4 * counter + 2 * pair + 1] = CudaLane::mul_f(radius, second);
      }
    }
  }
  return z;
}

}  // namespace
}  // namespace df
