// The intrinsics of AVX-512 that the core uses, as functions on two vectors of AVX2.
//
// With DIFFUSE_FAST_EMULATE=avx512 it stands before the compiler's <immintrin.h>, for the sources that are compiled for AVX-512.
// Each function is written from Intel's description of the instruction, and nothing that the core does not use is here.
#pragma once

#include_next <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>

#if defined(__AVX512F__)
#error "AVX-512 cannot be emulated by code that is compiled for it."
#endif

#define DF_EMULATED_INLINE inline __attribute__((always_inline))

namespace {

struct EmulatedFloats {
  __m256 low, high;
};
struct EmulatedIntegers {
  __m256i low, high;
};

}  // namespace

#define __m512 EmulatedFloats
#define __m512i EmulatedIntegers

// An intrinsic whose AVX2 form does the same to each half; arguments of the same type, and a number behind them.
#define DF_ONE(name, R, A) \
  DF_EMULATED_INLINE R df512_##name(A a) { return {_mm256_##name(a.low), _mm256_##name(a.high)}; }
#define DF_TWO(name, T) \
  DF_EMULATED_INLINE T df512_##name(T a, T b) { return {_mm256_##name(a.low, b.low), _mm256_##name(a.high, b.high)}; }
#define DF_THREE(name, T)                                                               \
  DF_EMULATED_INLINE T df512_##name(T a, T b, T c) {                                    \
    return {_mm256_##name(a.low, b.low, c.low), _mm256_##name(a.high, b.high, c.high)}; \
  }
#define DF_SHIFT(name) \
  DF_EMULATED_INLINE __m512i df512_##name(__m512i a, int n) { return {_mm256_##name(a.low, n), _mm256_##name(a.high, n)}; }

namespace {

DF_ONE(castps_si256, __m512i, __m512)
DF_ONE(castsi256_ps, __m512, __m512i)
DF_ONE(sqrt_ps, __m512, __m512)
DF_ONE(cvtps_epi32, __m512i, __m512)
DF_ONE(cvtepi32_ps, __m512, __m512i)
DF_TWO(add_ps, __m512)
DF_TWO(sub_ps, __m512)
DF_TWO(mul_ps, __m512)
DF_TWO(div_ps, __m512)
DF_TWO(max_ps, __m512)
DF_TWO(min_ps, __m512)
DF_TWO(unpacklo_ps, __m512)
DF_TWO(unpackhi_ps, __m512)
DF_TWO(and_si256, __m512i)
DF_TWO(or_si256, __m512i)
DF_TWO(xor_si256, __m512i)
DF_TWO(add_epi32, __m512i)
DF_TWO(sub_epi32, __m512i)
DF_TWO(add_epi64, __m512i)
DF_TWO(mul_epu32, __m512i)
DF_THREE(fmadd_ps, __m512)
DF_THREE(fnmsub_ps, __m512)
DF_SHIFT(slli_epi32)
DF_SHIFT(srli_epi32)
DF_SHIFT(srli_epi64)

DF_EMULATED_INLINE __m512 df512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
DF_EMULATED_INLINE __m512i df512_set1_epi32(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
DF_EMULATED_INLINE __m512i df512_set1_epi64(int64_t x) { return {_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)}; }
DF_EMULATED_INLINE __m512 df512_loadu_ps(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
DF_EMULATED_INLINE void df512_storeu_ps(float* p, __m512 a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}

// A mask has one bit per lane, from the lowest on. As lanes of all ones or all zeros:
DF_EMULATED_INLINE __m256i df512_lanes(unsigned mask) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit), bit);
}
DF_EMULATED_INLINE __mmask16 df512_mask(__m256 low, __m256 high) {
  return static_cast<__mmask16>(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
}
template <int kPredicate>
DF_EMULATED_INLINE __mmask16 df512_cmp(__m512 a, __m512 b) {
  return df512_mask(_mm256_cmp_ps(a.low, b.low, kPredicate), _mm256_cmp_ps(a.high, b.high, kPredicate));
}
// Lanes where a & b is not zero.
DF_EMULATED_INLINE __mmask16 df512_test(__m512i a, __m512i b) {
  const __m512i both = df512_and_si256(a, b);
  const __m256i zero = _mm256_setzero_si256();
  const int none =
      df512_mask(_mm256_castsi256_ps(_mm256_cmpeq_epi32(both.low, zero)), _mm256_castsi256_ps(_mm256_cmpeq_epi32(both.high, zero)));
  return static_cast<__mmask16>(~none);
}
// b in the lanes of the mask, else a.
DF_EMULATED_INLINE __m512 df512_blend(__mmask16 mask, __m512 a, __m512 b) {
  return {_mm256_blendv_ps(a.low, b.low, _mm256_castsi256_ps(df512_lanes(mask))),
          _mm256_blendv_ps(a.high, b.high, _mm256_castsi256_ps(df512_lanes(mask >> 8u)))};
}
DF_EMULATED_INLINE __m512i df512_mask_or(__m512i source, __mmask16 mask, __m512i a, __m512i b) {
  return df512_castps_si256(df512_blend(mask, df512_castsi256_ps(source), df512_castsi256_ps(df512_or_si256(a, b))));
}
DF_EMULATED_INLINE __m512 df512_maskz_loadu(__mmask16 mask, const float* p) {
  return {_mm256_maskload_ps(p, df512_lanes(mask)), _mm256_maskload_ps(p + 8, df512_lanes(mask >> 8u))};
}
DF_EMULATED_INLINE void df512_mask_storeu(float* p, __mmask16 mask, __m512 a) {
  _mm256_maskstore_ps(p, df512_lanes(mask), a.low);
  _mm256_maskstore_ps(p + 8, df512_lanes(mask >> 8u), a.high);
}
DF_EMULATED_INLINE __m512 df512_mask_moveldup(__m512 source, __mmask16 mask, __m512 a) {
  return df512_blend(mask, source, {_mm256_moveldup_ps(a.low), _mm256_moveldup_ps(a.high)});
}
DF_EMULATED_INLINE __m512 df512_mask_movehdup(__m512 source, __mmask16 mask, __m512 a) {
  return df512_blend(mask, source, {_mm256_movehdup_ps(a.low), _mm256_movehdup_ps(a.high)});
}

// Bit (4 a + 2 b + c) of the table, for each bit of a, b and c.
template <int kTable>
DF_EMULATED_INLINE __m512i df512_ternary(__m512i a, __m512i b, __m512i c) {
  const auto half = [](__m256i x, __m256i y, __m256i z) {
    const __m256i ones = _mm256_set1_epi32(-1);
    __m256i out = _mm256_setzero_si256();
    for (int i = 0; i < 8; ++i) {
      if ((kTable >> i & 1) == 0) continue;
      const __m256i p = i & 4 ? x : _mm256_xor_si256(x, ones), q = i & 2 ? y : _mm256_xor_si256(y, ones);
      out = _mm256_or_si256(out, _mm256_and_si256(_mm256_and_si256(p, q), i & 1 ? z : _mm256_xor_si256(z, ones)));
    }
    return out;
  };
  return {half(a.low, b.low, c.low), half(a.high, b.high, c.high)};
}

// To a multiple of 2^-M, with M in the upper four bits: the core rounds to whole numbers.
template <int kRounding>
DF_EMULATED_INLINE __m512 df512_roundscale(__m512 a) {
  static_assert(kRounding >> 4 == 0);
  return {_mm256_round_ps(a.low, kRounding), _mm256_round_ps(a.high, kRounding)};
}
// floor(log2 |x|) as a float.
DF_EMULATED_INLINE __m512 df512_getexp(__m512 a) {
  for (__m256* half : {&a.low, &a.high})
    for (int i = 0; i < 8; ++i) (*half)[i] = std::isnan((*half)[i]) ? (*half)[i] : std::logb((*half)[i]);
  return a;
}

template <int kRounding>
DF_EMULATED_INLINE __m256i df512_to_half(__m512 a) {
  return _mm256_set_m128i(_mm256_cvtps_ph(a.high, kRounding), _mm256_cvtps_ph(a.low, kRounding));
}
DF_EMULATED_INLINE __m512 df512_from_half(__m256i a) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}
DF_EMULATED_INLINE __m512i df512_widen(__m256i a) {
  return {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}
// The low 16 bits of each lane.
DF_EMULATED_INLINE __m256i df512_narrow(__m512i a) {
  const __m256i low = _mm256_set1_epi32(0xffff);
  const __m256i packed = _mm256_packus_epi32(_mm256_and_si256(a.low, low), _mm256_and_si256(a.high, low));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}

}  // namespace

#undef DF_ONE
#undef DF_TWO
#undef DF_THREE
#undef DF_SHIFT
#undef DF_EMULATED_INLINE

#define _mm512_sqrt_ps df512_sqrt_ps
#define _mm512_cvtps_epi32 df512_cvtps_epi32
#define _mm512_cvtepi32_ps df512_cvtepi32_ps
#define _mm512_add_ps df512_add_ps
#define _mm512_sub_ps df512_sub_ps
#define _mm512_mul_ps df512_mul_ps
#define _mm512_div_ps df512_div_ps
#define _mm512_max_ps df512_max_ps
#define _mm512_min_ps df512_min_ps
#define _mm512_unpacklo_ps df512_unpacklo_ps
#define _mm512_unpackhi_ps df512_unpackhi_ps
#define _mm512_add_epi32 df512_add_epi32
#define _mm512_sub_epi32 df512_sub_epi32
#define _mm512_add_epi64 df512_add_epi64
#define _mm512_mul_epu32 df512_mul_epu32
#define _mm512_fmadd_ps df512_fmadd_ps
#define _mm512_fnmsub_ps df512_fnmsub_ps
#define _mm512_slli_epi32(a, n) df512_slli_epi32(a, static_cast<int>(n))
#define _mm512_srli_epi32(a, n) df512_srli_epi32(a, static_cast<int>(n))
#define _mm512_srli_epi64(a, n) df512_srli_epi64(a, static_cast<int>(n))
#define _mm512_and_si512 df512_and_si256
#define _mm512_xor_si512 df512_xor_si256
#define _mm512_castps_si512 df512_castps_si256
#define _mm512_castsi512_ps df512_castsi256_ps
#define _mm512_set1_ps df512_set1_ps
#define _mm512_set1_epi32 df512_set1_epi32
#define _mm512_set1_epi64 df512_set1_epi64
#define _mm512_setr_epi64(a, b, c, d, e, f, g, h) \
  __m512i { _mm256_setr_epi64x(a, b, c, d), _mm256_setr_epi64x(e, f, g, h) }
#define _mm512_loadu_ps df512_loadu_ps
#define _mm512_storeu_ps df512_storeu_ps
#define _mm512_cmp_ps_mask(a, b, predicate) df512_cmp<predicate>(a, b)
#define _mm512_test_epi32_mask df512_test
#define _mm512_mask_blend_ps df512_blend
#define _mm512_mask_or_epi32 df512_mask_or
#define _mm512_maskz_loadu_ps df512_maskz_loadu
#define _mm512_mask_storeu_ps df512_mask_storeu
#define _mm512_mask_moveldup_ps df512_mask_moveldup
#define _mm512_mask_movehdup_ps df512_mask_movehdup
#define _mm512_ternarylogic_epi32(a, b, c, table) df512_ternary<table>(a, b, c)
#define _mm512_roundscale_ps(a, rounding) df512_roundscale<rounding>(a)
#define _mm512_getexp_ps df512_getexp
#define _mm512_cvtps_ph(a, rounding) df512_to_half<rounding>(a)
#define _mm512_cvtph_ps df512_from_half
#define _mm512_cvtepu16_epi32 df512_widen
#define _mm512_cvtepi32_epi16 df512_narrow
