// Sixteen floats at a time: AVX-512 F, BW, DQ and VL. The bf16 conversion instruction is not used: it flushes denormals.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd/host_device.h"

namespace df {
namespace {

struct Vector {
  using F = __m512;
  using I = __m512i;
  using W = __m512i;  // eight 64-bit lanes
  static constexpr int width = 16;
  static constexpr int counters = 8;

  static DF_INLINE F set(float x) { return _mm512_set1_ps(x); }
  static DF_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  static DF_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static DF_INLINE F mul_f(F a, F b) { return _mm512_mul_ps(a, b); }
  static DF_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static DF_INLINE F minus_fma(F a, F b, F c) { return _mm512_fnmsub_ps(a, b, c); }  // -(a * b) - c
  static DF_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a); }
  static DF_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
  static DF_INLINE F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static DF_INLINE F ceil(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
  static DF_INLINE F select_nan(F a, F x, F y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), y, x); }
  static DF_INLINE F select_less(F a, F b, F x, F y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }
  static DF_INLINE I to_int(F a) { return _mm512_cvtps_epi32(a); }
  static DF_INLINE F round_even(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // These instructions return the second operand if either is NaN or both are zero.
  static DF_INLINE F max_keep_nan(F bound, F x) { return _mm512_max_ps(bound, x); }
  static DF_INLINE F min_keep_nan(F bound, F x) { return _mm512_min_ps(bound, x); }
  static DF_INLINE bool any_nan(F a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0; }

  static DF_INLINE I set_i(int32_t x) { return _mm512_set1_epi32(x); }
  static DF_INLINE I bits(F a) { return _mm512_castps_si512(a); }
  static DF_INLINE F from_bits(I a) { return _mm512_castsi512_ps(a); }
  static DF_INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static DF_INLINE I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static DF_INLINE I sub_i(I a, I b) { return _mm512_sub_epi32(a, b); }
  static DF_INLINE I and_i(I a, I b) { return _mm512_and_si512(a, b); }
  static DF_INLINE I xor_i(I a, I b) { return _mm512_xor_si512(a, b); }
  static DF_INLINE I shr_i(I a, int n) { return _mm512_srli_epi32(a, static_cast<unsigned>(n)); }
  static DF_INLINE I shl_i(I a, int n) { return _mm512_slli_epi32(a, static_cast<unsigned>(n)); }
  // The exponent of positive, normal float bits, unbiased.
  static DF_INLINE F exponent(I a) { return _mm512_getexp_ps(from_bits(a)); }
  static DF_INLINE F scale_by_power_of_two(F a, F n) {
    return from_bits(_mm512_add_epi32(bits(a), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
  }
  static DF_INLINE F flip_if_bit31(I w, F a) {
    return from_bits(_mm512_ternarylogic_epi32(bits(a), w, set_i(INT32_MIN), 0x78));  // a ^ (w & sign)
  }
  static DF_INLINE void swap_if_bit30(I w, F& a, F& b) {
    const __mmask16 swap = _mm512_test_epi32_mask(w, set_i(0x40000000));
    const F first = _mm512_mask_blend_ps(swap, a, b);
    b = _mm512_mask_blend_ps(swap, b, a);
    a = first;
  }

  static DF_INLINE W wide(uint32_t x) { return _mm512_set1_epi32(static_cast<int32_t>(x)); }
  // Lanes hold first + 0 4 1 5 2 6 3 7: the order from which interleave() puts normals in element order.
  static DF_INLINE W counter(uint64_t first) {
    return _mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(first)), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  }
  static DF_INLINE W mul(W a, W b) { return _mm512_mul_epu32(a, b); }
  static DF_INLINE W high(W a) { return _mm512_srli_epi64(a, 32); }
  static DF_INLINE W xor3(W a, W b, W c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  // Low halves of a and b side by side, and high halves. Float moves do it in one instruction that merges by mask.
  static DF_INLINE W low_pair(W a, W b) { return bits(_mm512_mask_moveldup_ps(from_bits(a), 0xaaaa, from_bits(b))); }
  static DF_INLINE W high_pair(W a, W b) { return bits(_mm512_mask_movehdup_ps(from_bits(b), 0x5555, from_bits(a))); }
  static DF_INLINE W wide_pair(uint32_t low, uint32_t high) {
    return _mm512_set1_epi64(static_cast<int64_t>(low | static_cast<uint64_t>(high) << 32));
  }
  static DF_INLINE I words(W a) { return a; }
  static DF_INLINE void interleave(F a, F b, F* z) {
    z[0] = _mm512_unpacklo_ps(a, b);
    z[1] = _mm512_unpackhi_ps(a, b);
  }

  static DF_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  static DF_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a); }

  static DF_INLINE F load_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static DF_INLINE void store_f16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static DF_INLINE F load_bf16(const uint16_t* p) {
    const I wide_bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return from_bits(_mm512_slli_epi32(wide_bits, 16));
  }
  static DF_INLINE void store_bf16(uint16_t* p, F a) {
    const I u = bits(a), top = _mm512_srli_epi32(u, 16);
    const I rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(_mm512_and_si512(top, set_i(1)), set_i(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const I result = _mm512_mask_or_epi32(rounded, nan, top, set_i(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
  }
};

}  // namespace
}  // namespace df
