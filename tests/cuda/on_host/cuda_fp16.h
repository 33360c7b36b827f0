// float16 for the host's device: the conversions of vector_scalar.h, which the core's tests hold to the hardware's.
#pragma once

#include <cstdint>

#include "simd/vector_scalar.h"

struct __half {
  uint16_t bits;
};
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half h) { return h.bits; }
inline float __half2float(__half h) { return df::Vector::load_f16(&h.bits); }
inline __half __float2half_rn(float a) {
  __half h;
  df::Vector::store_f16(&h.bits, a);
  return h;
}
