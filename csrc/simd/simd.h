// The vectors of one instruction set, with loads and stores by dtype.
//
// For sources that are compiled once per instruction set: CMake defines DF_ISA, DF_ISA_<NAME> and the compiler flags.
// Everything here has internal linkage, because code compiled for one instruction set must never be linked into another.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(DF_ISA_AVX512)
#include "simd/vector_avx512.h"
#elif defined(DF_ISA_AVX2)
#include "simd/vector_avx2.h"
#elif defined(DF_ISA_NEON)
#include "simd/vector_neon.h"
#else
#include "simd/vector_scalar.h"
#endif

#include "simd/dtype.h"
#include "simd/host_device.h"

#define DF_PASTE2(a, b) a##b
#define DF_PASTE(a, b) DF_PASTE2(a, b)
#define DF_STRING2(a) #a
#define DF_STRING(a) DF_STRING2(a)

namespace df {
namespace {

using F = Vector::F;
constexpr int kWidth = Vector::width;

template <DType kType>
DF_INLINE F load_as(const void* base, int64_t i) {
  if constexpr (kType == DType::kFloat32) return Vector::load(static_cast<const float*>(base) + i);
  if constexpr (kType == DType::kFloat16) return Vector::load_f16(static_cast<const uint16_t*>(base) + i);
  if constexpr (kType == DType::kBFloat16) return Vector::load_bf16(static_cast<const uint16_t*>(base) + i);
}

template <DType kType>
DF_INLINE void store_as(void* base, int64_t i, F value) {
  if constexpr (kType == DType::kFloat32) Vector::store(static_cast<float*>(base) + i, value);
  if constexpr (kType == DType::kFloat16) Vector::store_f16(static_cast<uint16_t*>(base) + i, value);
  if constexpr (kType == DType::kBFloat16) Vector::store_bf16(static_cast<uint16_t*>(base) + i, value);
}

template <DType kType>
constexpr int64_t kBytes = kType == DType::kFloat32 ? 4 : 2;

// Lanes [first, last) of a vector.
#if defined(DF_ISA_AVX512)
DF_INLINE __mmask16 lanes(int first, int last) { return static_cast<__mmask16>((1u << last) - (1u << first)); }
#elif defined(DF_ISA_AVX2)
DF_INLINE __m256i lanes(int first, int last) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane), _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane));
}
#endif

// Elements [first, last) of the vector whose element 0 is at `i`: for the ends of an array. Nothing else is read or written.
// Masked where the instruction set can, else through a buffer.
template <DType kType>
DF_INLINE F load_part(const void* base, int64_t i, int first, int last) {
#if defined(DF_ISA_AVX512)
  if constexpr (kType == DType::kFloat32) return _mm512_maskz_loadu_ps(lanes(first, last), static_cast<const float*>(base) + i);
#elif defined(DF_ISA_AVX2)
  if constexpr (kType == DType::kFloat32) return _mm256_maskload_ps(static_cast<const float*>(base) + i, lanes(first, last));
#endif
  alignas(64) unsigned char buffer[kWidth * 4] = {};
  constexpr int64_t bytes = kBytes<kType>;
  std::memcpy(buffer + first * bytes, static_cast<const unsigned char*>(base) + (i + first) * bytes,
              static_cast<size_t>((last - first) * bytes));
  return load_as<kType>(buffer, 0);
}

template <DType kType>
DF_INLINE void store_part(void* base, int64_t i, int first, int last, F value) {
#if defined(DF_ISA_AVX512)
  if constexpr (kType == DType::kFloat32) return _mm512_mask_storeu_ps(static_cast<float*>(base) + i, lanes(first, last), value);
#elif defined(DF_ISA_AVX2)
  if constexpr (kType == DType::kFloat32) return _mm256_maskstore_ps(static_cast<float*>(base) + i, lanes(first, last), value);
#endif
  alignas(64) unsigned char buffer[kWidth * 4];
  store_as<kType>(buffer, 0, value);
  constexpr int64_t bytes = kBytes<kType>;
  std::memcpy(static_cast<unsigned char*>(base) + (i + first) * bytes, buffer + first * bytes,
              static_cast<size_t>((last - first) * bytes));
}

}  // namespace
}  // namespace df
