// What every source that is compiled once per instruction set begins with: its vectors, its noise, its loads and stores.
//
// CMake defines DF_ISA and the compiler flags. Everything here has internal linkage: code compiled for one instruction set
// must never be linked into another.

#pragma once

#include <cstring>
#include <type_traits>

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
#include "step/twice.h"

#define DF_PASTE2(a, b) a##b
#define DF_PASTE(a, b) DF_PASTE2(a, b)
#define DF_STRING2(a) #a
#define DF_STRING(a) DF_STRING2(a)

namespace df {
namespace {

using F = Vector::F;
using I = Vector::I;
constexpr int kWidth = Vector::width;
constexpr int kBlock = 4 * Vector::counters;               // elements of one block of counters: two vectors of them
constexpr int kGroup = kWidth == 1 ? kBlock : 4 * kBlock;  // elements of one turn of the loop
constexpr int kVectors = kGroup / kWidth;

// ---- noise ------------------------------------------------------------------------------------------

// What the counters of a sample have in common, made once for a row of it.
struct Noise {
  PhiloxKeys keys;
  uint32_t row, index;
  DF_INLINE Noise(uint64_t seed, uint32_t the_row, uint32_t the_index) : keys(seed), row(the_row), index(the_index) {
    // A compiler that knows how the keys are computed does so anew in every turn of the loop. From memory they cost nothing:
    // an instruction broadcasts one while it loads it.
    __asm__("" : "+m"(keys));
  }
};

// The normals of V's counters from `first` on, in element order.
template <class V>
DF_INLINE void normals_of_counters(F* z, const Noise& noise, uint64_t first, uint32_t stream) {
  typename V::W c[4] = {V::counter(first), V::wide(noise.row), V::wide(noise.index), V::wide(stream)};
  if constexpr (kWidth == 1) {
    philox4x32_10<V>(c, noise.keys);
    for (int pair = 0; pair < 2; ++pair) {
      const auto radius = normal_radius<V>(static_cast<typename V::I>(c[2 * pair]));
      typename V::F first_z, second_z;
      normal_direction<V>(static_cast<typename V::I>(c[2 * pair + 1]), first_z, second_z);
      z[2 * pair] = radius * first_z;
      z[2 * pair + 1] = radius * second_z;
    }
  } else {
    typename V::I u, w;
    philox4x32_10_pairs<V>(c, noise.keys, u, w);
    const auto radius = normal_radius<V>(u);
    typename V::F first_z, second_z;
    normal_direction<V>(w, first_z, second_z);
    V::interleave(V::mul_f(radius, first_z), V::mul_f(radius, second_z), z);
  }
}

// The normals of one group, whose first element has the logical index `element` (a multiple of four). A block is one chain of
// operations, each of which waits for the one before; four of them are computed in step.
DF_INLINE void normals_of_group(F* z, const Noise& noise, uint64_t element, uint32_t stream) {
  using Chains = std::conditional_t<kWidth == 1, Vector, Twice<Twice<Vector>>>;
  normals_of_counters<Chains>(z, noise, element / 4, stream);
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
