// One float at a time, without intrinsics: runs on every machine, and is the plainest form of the arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "simd/fma.h"
#include "simd/host_device.h"

namespace df {
namespace {

struct Vector {
  using F = float;
  using I = int32_t;
  using W = uint64_t;
  static constexpr int width = 1;
  static constexpr int counters = 1;

  static DF_INLINE F set(float x) { return x; }
  static DF_INLINE F add(F a, F b) { return a + b; }
  static DF_INLINE F sub(F a, F b) { return a - b; }
  static DF_INLINE F mul_f(F a, F b) { return a * b; }
  static DF_INLINE F fma(F a, F b, F c) { return fma_of(a, b, c); }
  static DF_INLINE F minus_fma(F a, F b, F c) { return fma_of(-a, b, -c); }
  static DF_INLINE F sqrt(F a) { return std::sqrt(a); }
  static DF_INLINE F div(F a, F b) { return a / b; }
  static DF_INLINE F floor(F a) { return std::floor(a); }
  static DF_INLINE F ceil(F a) { return std::ceil(a); }
  static DF_INLINE F select_nan(F a, F x, F y) { return a != a ? x : y; }
  static DF_INLINE F select_less(F a, F b, F x, F y) { return a < b ? x : y; }     // x where a < b; y also where either is NaN
  static DF_INLINE I to_int(F a) { return a == a ? static_cast<int32_t>(a) : 0; }  // of integers; any value for NaN
  static DF_INLINE F round_even(F a) { return std::nearbyint(a); }
  static DF_INLINE F max_keep_nan(F bound, F x) { return x < bound ? bound : x; }
  static DF_INLINE F min_keep_nan(F bound, F x) { return x > bound ? bound : x; }
  static DF_INLINE bool any_nan(F a) { return a != a; }

  static DF_INLINE I set_i(int32_t x) { return x; }
  static DF_INLINE I bits(F a) { return std::bit_cast<int32_t>(a); }
  static DF_INLINE F from_bits(I a) { return std::bit_cast<float>(a); }
  static DF_INLINE F to_float(I a) { return static_cast<float>(a); }
  static DF_INLINE I add_i(I a, I b) { return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }
  static DF_INLINE I sub_i(I a, I b) { return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b)); }
  static DF_INLINE I and_i(I a, I b) { return a & b; }
  static DF_INLINE I xor_i(I a, I b) { return a ^ b; }
  static DF_INLINE I shr_i(I a, int n) { return static_cast<int32_t>(static_cast<uint32_t>(a) >> n); }
  static DF_INLINE I shl_i(I a, int n) { return static_cast<int32_t>(static_cast<uint32_t>(a) << n); }
  // The exponent of positive, normal float bits, unbiased.
  static DF_INLINE F exponent(I a) { return to_float(sub_i(shr_i(a, 23), set_i(127))); }
  static DF_INLINE F scale_by_power_of_two(F a, F n) {
    return n == n ? from_bits(add_i(bits(a), shl_i(static_cast<int32_t>(n), 23))) : a;
  }
  static DF_INLINE F flip_if_bit31(I w, F a) { return from_bits(xor_i(bits(a), and_i(w, set_i(INT32_MIN)))); }
  static DF_INLINE void swap_if_bit30(I w, F& a, F& b) {
    const F first = w & 0x40000000 ? b : a;
    b = w & 0x40000000 ? a : b;
    a = first;
  }

  static DF_INLINE W wide(uint32_t x) { return x; }
  static DF_INLINE W counter(uint64_t first) { return first; }
  static DF_INLINE W mul(W a, W b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
  static DF_INLINE W high(W a) { return a >> 32; }
  static DF_INLINE W xor3(W a, W b, W c) { return a ^ b ^ c; }

  static DF_INLINE F load(const float* p) { return *p; }
  static DF_INLINE void store(float* p, F a) { *p = a; }

  static DF_INLINE F load_bf16(const uint16_t* p) { return std::bit_cast<float>(static_cast<uint32_t>(*p) << 16); }
  static DF_INLINE void store_bf16(uint16_t* p, F a) {
    const uint32_t u = std::bit_cast<uint32_t>(a);
    *p = static_cast<uint16_t>(a == a ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : (u >> 16) | 0x40u);
  }

  static DF_INLINE F load_f16(const uint16_t* p) {
    const uint32_t h = *p, sign = (h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
    if (exponent == 0) {  // zero or a denormal: the mantissa in units of 2^-24
      const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
      return std::bit_cast<float>(std::bit_cast<uint32_t>(tiny) | sign);
    }
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  }
  static DF_INLINE void store_f16(uint16_t* p, F a) {
    const uint32_t u = std::bit_cast<uint32_t>(a), magnitude = u & 0x7fffffffu;
    const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
    uint32_t h;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
      h = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal in float16
      h = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else {  // denormal: adding 1/2 rounds to a multiple of 2^-24; the low bits of the sum are the result
      h = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    }
    *p = static_cast<uint16_t>(sign | h);
  }
};

}  // namespace
}  // namespace df
