// Eight floats at a time: AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd/host_device.h"

namespace df {
namespace {

struct Vector {
  using F = __m256;
  using I = __m256i;
  using W = __m256i;  // four 64-bit lanes
  static constexpr int width = 8;
  static constexpr int counters = 4;

  static DF_INLINE F set(float x) { return _mm256_set1_ps(x); }
  static DF_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  static DF_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static DF_INLINE F mul_f(F a, F b) { return _mm256_mul_ps(a, b); }
  static DF_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static DF_INLINE F minus_fma(F a, F b, F c) { return _mm256_fnmsub_ps(a, b, c); }  // -(a * b) - c
  static DF_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a); }
  static DF_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
  static DF_INLINE F floor(F a) { return _mm256_floor_ps(a); }
  static DF_INLINE F ceil(F a) { return _mm256_ceil_ps(a); }
  static DF_INLINE F select_nan(F a, F x, F y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
  static DF_INLINE F select_less(F a, F b, F x, F y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
  static DF_INLINE I to_int(F a) { return _mm256_cvtps_epi32(a); }
  static DF_INLINE F round_even(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // These instructions return the second operand if either is NaN or both are zero.
  static DF_INLINE F max_keep_nan(F bound, F x) { return _mm256_max_ps(bound, x); }
  static DF_INLINE F min_keep_nan(F bound, F x) { return _mm256_min_ps(bound, x); }
  static DF_INLINE bool any_nan(F a) { return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)) != 0; }

  static DF_INLINE I set_i(int32_t x) { return _mm256_set1_epi32(x); }
  static DF_INLINE I bits(F a) { return _mm256_castps_si256(a); }
  static DF_INLINE F from_bits(I a) { return _mm256_castsi256_ps(a); }
  static DF_INLINE F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static DF_INLINE I add_i(I a, I b) { return _mm256_add_epi32(a, b); }
  static DF_INLINE I sub_i(I a, I b) { return _mm256_sub_epi32(a, b); }
  static DF_INLINE I and_i(I a, I b) { return _mm256_and_si256(a, b); }
  static DF_INLINE I xor_i(I a, I b) { return _mm256_xor_si256(a, b); }
  static DF_INLINE I shr_i(I a, int n) { return _mm256_srli_epi32(a, n); }
  static DF_INLINE I shl_i(I a, int n) { return _mm256_slli_epi32(a, n); }
  // The exponent of positive, normal float bits, unbiased.
  static DF_INLINE F exponent(I a) { return to_float(sub_i(shr_i(a, 23), set_i(127))); }
  static DF_INLINE F scale_by_power_of_two(F a, F n) {
    return from_bits(_mm256_add_epi32(bits(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
  }
  static DF_INLINE F flip_if_bit31(I w, F a) { return from_bits(xor_i(bits(a), and_i(w, set_i(INT32_MIN)))); }
  static DF_INLINE void swap_if_bit30(I w, F& a, F& b) {
    const F swap = from_bits(_mm256_slli_epi32(w, 1));  // blendv selects by the sign bit
    const F first = _mm256_blendv_ps(a, b, swap);
    b = _mm256_blendv_ps(b, a, swap);
    a = first;
  }

  static DF_INLINE W wide(uint32_t x) { return _mm256_set1_epi32(static_cast<int32_t>(x)); }
  // Lanes hold first + 0 2 1 3: the order from which interleave() puts normals in element order.
  static DF_INLINE W counter(uint64_t first) {
    return _mm256_add_epi64(_mm256_set1_epi64x(static_cast<int64_t>(first)), _mm256_setr_epi64x(0, 2, 1, 3));
  }
  static DF_INLINE W mul(W a, W b) { return _mm256_mul_epu32(a, b); }
  static DF_INLINE W high(W a) { return _mm256_srli_epi64(a, 32); }
  static DF_INLINE W xor3(W a, W b, W c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  // Low halves of a and b side by side, and high halves.
  static DF_INLINE W low_pair(W a, W b) { return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa); }
  static DF_INLINE W high_pair(W a, W b) { return _mm256_blend_epi32(_mm256_srli_epi64(a, 32), b, 0xaa); }
  static DF_INLINE W wide_pair(uint32_t low, uint32_t high) {
    return _mm256_set1_epi64x(static_cast<int64_t>(low | static_cast<uint64_t>(high) << 32));
  }
  static DF_INLINE I words(W a) { return a; }
  static DF_INLINE void interleave(F a, F b, F* z) {
    z[0] = _mm256_unpacklo_ps(a, b);
    z[1] = _mm256_unpackhi_ps(a, b);
  }

  static DF_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
  static DF_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a); }

  static DF_INLINE F load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static DF_INLINE void store_f16(uint16_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static DF_INLINE F load_bf16(const uint16_t* p) {
    const I wide_bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return from_bits(_mm256_slli_epi32(wide_bits, 16));
  }
  static DF_INLINE void store_bf16(uint16_t* p, F a) {
    const I u = bits(a), top = _mm256_srli_epi32(u, 16);
    const I rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(_mm256_and_si256(top, set_i(1)), set_i(0x7fff))), 16);
    const I nan = bits(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const I result = _mm256_blendv_epi8(rounded, _mm256_or_si256(top, set_i(0x40)), nan);
    const I packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(result, result), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
};

}  // namespace
}  // namespace df
