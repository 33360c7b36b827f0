// What every source that is compiled once per instruction set begins with: its vectors, its noise, its loads and stores.
//
// CMake defines DF_ISA and the compiler flags. Everything here has internal linkage: code compiled for one instruction set
// must never be linked into another.

#pragma once

#include <cstring>

#if defined(DF_ISA_AVX512)
#include "step/vector_avx512.h"
#elif defined(DF_ISA_AVX2)
#include "step/vector_avx2.h"
#elif defined(DF_ISA_NEON)
#include "step/vector_neon.h"
#else
#include "step/vector_scalar.h"
#endif

#include "random/normal.h"
#include "random/philox.h"
#include "step/step.h"

#define DF_PASTE2(a, b) a##b
#define DF_PASTE(a, b) DF_PASTE2(a, b)
#define DF_STRING2(a) #a
#define DF_STRING(a) DF_STRING2(a)

namespace df {
namespace {

using F = Vector::F;
using I = Vector::I;
constexpr int kWidth = Vector::width;
constexpr int kBlock = 4 * Vector::counters;          // elements of one block of counters
constexpr int kBlockVectors = kBlock / kWidth;        // 2 with vectors, 4 without
constexpr int kGroup = kWidth == 1 ? 4 : 4 * kWidth;  // elements of one turn of the loop: four vectors
constexpr int kVectors = kGroup / kWidth;

// ---- noise ------------------------------------------------------------------------------------------

// The normals of one block of counters, in element order.
template <class V = Vector>  // a template, so that only the branch of this width is compiled
DF_INLINE void normals_of_block(typename V::F* z, uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream) {
  typename V::W c[4] = {V::counter(first), V::wide(row), V::wide(index), V::wide(stream)};
  philox4x32_10<V>(c, seed);
  if constexpr (V::width == 1) {
    for (int pair = 0; pair < 2; ++pair) {
      const auto radius = normal_radius<V>(static_cast<typename V::I>(c[2 * pair]));
      typename V::F first_z, second_z;
      normal_direction<V>(static_cast<typename V::I>(c[2 * pair + 1]), first_z, second_z);
      z[2 * pair] = radius * first_z;
      z[2 * pair + 1] = radius * second_z;
    }
  } else {
    const auto radius = normal_radius<V>(V::join(c[0], c[2]));
    typename V::F first_z, second_z;
    normal_direction<V>(V::join(c[1], c[3]), first_z, second_z);
    V::interleave(V::mul_f(radius, first_z), V::mul_f(radius, second_z), z[0], z[1]);
  }
}

// The normals of one group, whose first element has the logical index `element` (a multiple of four).
DF_INLINE void normals_of_group(F* z, uint64_t seed, uint64_t element, uint32_t row, uint32_t index, uint32_t stream) {
  for (int b = 0; b < kVectors / kBlockVectors; ++b)
    normals_of_block(z + b * kBlockVectors, seed, element / 4 + static_cast<uint64_t>(b) * Vector::counters, row, index, stream);
}

// ---- loading and storing ------------------------------------------------------------------------------

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

// Elements [first, last) of a vector whose element 0 is at `i`: the ends of a row, through a buffer.
template <DType kType>
DF_INLINE F load_part(const void* base, int64_t i, int first, int last) {
  alignas(64) unsigned char buffer[kWidth * 4] = {};
  constexpr int64_t bytes = kBytes<kType>;
  std::memcpy(buffer + first * bytes, static_cast<const unsigned char*>(base) + (i + first) * bytes,
              static_cast<size_t>((last - first) * bytes));
  return load_as<kType>(buffer, 0);
}

template <DType kType>
DF_INLINE void store_part(void* base, int64_t i, int first, int last, F value) {
  alignas(64) unsigned char buffer[kWidth * 4];
  store_as<kType>(buffer, 0, value);
  constexpr int64_t bytes = kBytes<kType>;
  std::memcpy(static_cast<unsigned char*>(base) + (i + first) * bytes, buffer + first * bytes,
              static_cast<size_t>((last - first) * bytes));
}

}  // namespace
}  // namespace df
