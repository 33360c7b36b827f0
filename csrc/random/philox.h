// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), for scalars and vectors.
//
//   key     = (seed low, seed high)
//   counter = (element / 4, row, sample index, stream)
//
// One counter gives four 32-bit words, for the elements 4i .. 4i+3 of a sample. The generator has no state: the same
// (seed, index) gives the same sample in any batch, order, thread or implementation.
//
// The rounds are written once for a type V that holds words in the low halves of 64-bit lanes. The widening multiplication
// of x86 reads only that half, so the upper half may hold anything, and nothing is masked or shuffled.

#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df {

inline constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

// The keys of the ten rounds.
struct PhiloxKeys {
  static constexpr int kRounds = 10;
  uint32_t k0[kRounds], k1[kRounds];
  DF_INLINE explicit PhiloxKeys(uint64_t seed) {
    uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
#if defined(__CUDACC__)
#pragma unroll
#endif
    for (int round = 0; round < kRounds; ++round, low += kPhiloxW0, high += kPhiloxW1) {
      k0[round] = low;
      k1[round] = high;
    }
  }
};

// V::W is a vector of 64-bit lanes with: wide(x) broadcast, mul(a, b) of the low halves, high(a) = a >> 32, xor3.
template <class V>
DF_INLINE void philox_rounds(typename V::W (&c)[4], const PhiloxKeys& keys, int rounds) {
  const auto m0 = V::wide(kPhiloxM0), m1 = V::wide(kPhiloxM1);
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < rounds; ++round) {
    const auto p0 = V::mul(m0, c[0]), p1 = V::mul(m1, c[2]);
    c[0] = V::xor3(V::high(p1), c[1], V::wide(keys.k0[round]));
    c[2] = V::xor3(V::high(p0), c[3], V::wide(keys.k1[round]));
    c[1] = p1;
    c[3] = p0;
  }
}

// On return the low half of each lane of c[j] is word j.
template <class V>
DF_INLINE void philox4x32_10(typename V::W (&c)[4], const PhiloxKeys& keys) {
  philox_rounds<V>(c, keys, PhiloxKeys::kRounds);
}

// The same words arranged for the Box-Muller pairs: words 0 and 2 of every counter in u, words 1 and 3 in w. V::low_pair and
// V::high_pair put the low or the high halves of two vectors side by side, which saves the shifts of the last round.
template <class V>
DF_INLINE void philox4x32_10_pairs(typename V::W (&c)[4], const PhiloxKeys& keys, typename V::I& u, typename V::I& w) {
  constexpr int last = PhiloxKeys::kRounds - 1;
  philox_rounds<V>(c, keys, last);
  const auto p0 = V::mul(V::wide(kPhiloxM0), c[0]), p1 = V::mul(V::wide(kPhiloxM1), c[2]);
  u = V::words(V::xor3(V::high_pair(p1, p0), V::low_pair(c[1], c[3]), V::wide_pair(keys.k0[last], keys.k1[last])));
  w = V::words(V::low_pair(p1, p0));
}

}  // namespace df
