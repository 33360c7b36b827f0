// The fused multiply-add of floats, for machines without the instruction.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "simd/host_device.h"

namespace df {
namespace {

// a * b + c, rounded once to nearest even: the bits of the instruction, except for the payload of a NaN.
//
// In double the product is exact and the sum is not, so a second rounding to float could differ. Rounded to odd, the sum keeps what
// the second rounding must know: whether the exact sum is above, below or at the middle of two floats. (Boldo and Melquiond 2008,
// "Emulation of a FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd")
#if defined(DF_SMALL_FMA)  // a call instead of a dozen instructions each time
__attribute__((noinline, unused))
#else
DF_INLINE
#endif
float exact_fma(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = c;
  const double sum = product + addend;
  const double part = sum - product, error = (product - (sum - part)) + (addend - part);  // what the sum lacks, exactly (Knuth)
  auto bits = std::bit_cast<int64_t>(sum);
  // An even sum is one unit of its last place from the odd one on the side of the error. Infinities have NaN as their error.
  const int64_t away = (error > 0) == (sum > 0) ? 1 : -1;
  bits += (error > 0 || error < 0) && (bits & 1) == 0 ? away : 0;
  return static_cast<float>(std::bit_cast<double>(bits));
}

// The fastest of the two: std::fma calls a function where the compiler may not use the instruction.
DF_INLINE float fma_of(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
  return std::fma(a, b, c);
#else
  return exact_fma(a, b, c);
#endif
}

}  // namespace
}  // namespace df
