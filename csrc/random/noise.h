// Normals in vectors of the instruction set (simd/simd.h): what the step draws for consecutive elements of a sample.

#pragma once

#include <cstdint>
#include <type_traits>

#include "random/normal.h"
#include "random/philox.h"
#include "simd/simd.h"
#include "simd/unroll.h"

namespace df {
namespace {

constexpr int kBlock = 4 * Vector::counters;               // elements of one vector of counters: two vectors of normals
constexpr int kGroup = kWidth == 1 ? kBlock : 4 * kBlock;  // elements per iteration of a loop
constexpr int kVectors = kGroup / kWidth;                  // vectors per iteration of a loop

// The counter words that all elements of a sample share in one row.
struct Noise {
  PhiloxKeys keys;
  uint32_t row, index;
  DF_INLINE Noise(uint64_t seed, uint32_t the_row, uint32_t the_index) : keys(seed), row(the_row), index(the_index) {
    // Keep the keys in memory: a load broadcasts one for free, but a compiler that sees how they are computed would recompute
    // them in every iteration.
    __asm__("" : "+m"(keys));
  }
};

// The normals of V's counters from `first` on, in element order.
template <class V>
DF_INLINE void normals_of_counters(F* z, const Noise& noise, uint64_t first, uint32_t stream) {
  typename V::W c[4] = {V::counter(first), V::wide(noise.row), V::wide(noise.index), V::wide(stream)};
  if constexpr (kWidth == 1) {
    philox4x32_10<V>(c, noise.keys);
    for (int pair = 0; pair < 2; ++pair) {
      const auto radius = normal_radius<V>(static_cast<typename V::I>(c[2 * pair]));
      typename V::F first_z, second_z;
      normal_direction<V>(static_cast<typename V::I>(c[2 * pair + 1]), first_z, second_z);
      z[2 * pair] = radius * first_z;
      z[2 * pair + 1] = radius * second_z;
    }
  } else {
    typename V::I u, w;
    philox4x32_10_pairs<V>(c, noise.keys, u, w);
    const auto radius = normal_radius<V>(u);
    typename V::F first_z, second_z;
    normal_direction<V>(w, first_z, second_z);
    V::interleave(V::mul_f(radius, first_z), V::mul_f(radius, second_z), z);
  }
}

// The normals of one group. Its first element has the logical index `element`, a multiple of four. A block is one chain of
// dependent operations, so four blocks are computed side by side.
DF_INLINE void normals_of_group(F* z, const Noise& noise, uint64_t element, uint32_t stream) {
  using Chains = std::conditional_t<kWidth == 1, Vector, Unrolled<Unrolled<Vector>>>;
  normals_of_counters<Chains>(z, noise, element / 4, stream);
}

}  // namespace
}  // namespace df
