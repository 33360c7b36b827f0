// AVX-512 on a processor with AVX2: SIMDe's functions under the names of the intrinsics.
//
// With DIFFUSE_FAST_EMULATE=avx512 it stands before the compiler's <immintrin.h>, for the sources that are compiled for AVX-512.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__AVX512F__)
#error "AVX-512 cannot be emulated by code that is compiled for it."
#endif

// What SIMDe 0.8.2 lacks, as the processor's manual has it, and masked loads and stores that touch no lane outside the mask.
namespace {

using Lanes = std::array<float, 16>;

inline __m512 df_maskz_loadu_ps(__mmask16 mask, const float* from) {
  Lanes out{};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) out[i] = from[i];
  return std::bit_cast<__m512>(out);
}

inline void df_mask_storeu_ps(float* to, __mmask16 mask, __m512 a) {
  const auto in = std::bit_cast<Lanes>(a);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) to[i] = in[i];
}

inline __m512 df_getexp_ps(__m512 a) {
  auto lanes = std::bit_cast<Lanes>(a);
  for (float& x : lanes) x = std::isnan(x) ? x : std::logb(x);
  return std::bit_cast<__m512>(lanes);
}

inline __m512 df_mask_moveldup_ps(__m512 source, __mmask16 mask, __m512 a) {
  auto out = std::bit_cast<Lanes>(source);
  const auto in = std::bit_cast<Lanes>(a);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) out[i] = in[i & ~1];
  return std::bit_cast<__m512>(out);
}

inline __m512 df_mask_movehdup_ps(__m512 source, __mmask16 mask, __m512 a) {
  auto out = std::bit_cast<Lanes>(source);
  const auto in = std::bit_cast<Lanes>(a);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) out[i] = in[i | 1];
  return std::bit_cast<__m512>(out);
}

inline __m256i df_cvtepi32_epi16(__m512i a) {
  std::array<uint16_t, 16> out;
  const auto in = std::bit_cast<std::array<uint32_t, 16>>(a);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint16_t>(in[i]);
  return std::bit_cast<__m256i>(out);
}

template <int rounding>
inline __m256i df_cvtps_ph(__m512 a) {
  const auto in = std::bit_cast<std::array<__m256, 2>>(a);
  return std::bit_cast<__m256i>(std::array<__m128i, 2>{_mm256_cvtps_ph(in[0], rounding & 7), _mm256_cvtps_ph(in[1], rounding & 7)});
}

}  // namespace

#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#define _mm512_maskz_loadu_ps(mask, from) df_maskz_loadu_ps(mask, from)
#define _mm512_mask_storeu_ps(to, mask, a) df_mask_storeu_ps(to, mask, a)
#define _mm512_getexp_ps(a) df_getexp_ps(a)
#define _mm512_mask_moveldup_ps(source, mask, a) df_mask_moveldup_ps(source, mask, a)
#define _mm512_mask_movehdup_ps(source, mask, a) df_mask_movehdup_ps(source, mask, a)
#define _mm512_cvtepi32_epi16(a) df_cvtepi32_epi16(a)
#define _mm512_cvtps_ph(a, rounding) df_cvtps_ph<rounding>(a)
