// The elements of one CUDA thread: N floats in registers, with 128-bit loads and stores.
//
// Every operation names its rounding, so that no compiler flag changes a bit.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "simd/dtype.h"
#include "simd/host_device.h"

// Called with the number of bytes of every access to a tensor. Empty on a device; tests that run the kernel on the host count
// bytes.
#if !defined(DF_ON_ACCESS)
#define DF_ON_ACCESS(bytes)
#endif

namespace df {
namespace {

// One element.
struct CudaLane {
  using F = float;
  using I = int32_t;
  using W = uint64_t;

  static DF_INLINE F set(float x) { return x; }
  static DF_INLINE F add(F a, F b) { return __fadd_rn(a, b); }
  static DF_INLINE F sub(F a, F b) { return __fsub_rn(a, b); }
  static DF_INLINE F mul_f(F a, F b) { return __fmul_rn(a, b); }
  static DF_INLINE F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
  static DF_INLINE F minus_fma(F a, F b, F c) { return __fmaf_rn(-a, b, -c); }
  static DF_INLINE F sqrt(F a) { return __fsqrt_rn(a); }
  static DF_INLINE F round_even(F a) { return rintf(a); }
  static DF_INLINE F max_keep_nan(F bound, F x) { return x < bound ? bound : x; }
  static DF_INLINE F min_keep_nan(F bound, F x) { return x > bound ? bound : x; }

  static DF_INLINE I set_i(int32_t x) { return x; }
  static DF_INLINE I bits(F a) { return __float_as_int(a); }
  static DF_INLINE F from_bits(I a) { return __int_as_float(a); }
  static DF_INLINE F to_float(I a) { return __int2float_rn(a); }
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

  // A product of two 32-bit words is one instruction; upper halves that are never read cost nothing.
  static DF_INLINE W wide(uint32_t x) { return x; }
  static DF_INLINE W mul(W a, W b) { return static_cast<uint64_t>(static_cast<uint32_t>(a)) * static_cast<uint32_t>(b); }
  static DF_INLINE W high(W a) { return a >> 32; }
  static DF_INLINE W xor3(W a, W b, W c) { return a ^ b ^ c; }

  static DF_INLINE F from_f16(uint16_t h) { return __half2float(__ushort_as_half(h)); }
  static DF_INLINE uint16_t to_f16(F a) { return __half_as_ushort(__float2half_rn(a)); }
  static DF_INLINE F from_bf16(uint16_t h) { return __int_as_float(static_cast<int32_t>(static_cast<uint32_t>(h) << 16)); }
  static DF_INLINE uint16_t to_bf16(F a) {
    const uint32_t u = static_cast<uint32_t>(__float_as_int(a));
    return static_cast<uint16_t>(a == a ? (u + 0x7fffu + ((u >> 16) & 1u)) >> 16 : (u >> 16) | 0x40u);
  }
};

// N elements side by side: the vector of apply.h.
template <int N>
struct CudaVector {
  struct F {
    float v[N];
  };

  template <class Op>
  static DF_INLINE F each(Op op) {
    F out;
#pragma unroll
    for (int j = 0; j < N; ++j) out.v[j] = op(j);
    return out;
  }
  static DF_INLINE F set(float x) {
    return each([&](int) { return x; });
  }
  static DF_INLINE F add(F a, F b) {
    return each([&](int j) { return CudaLane::add(a.v[j], b.v[j]); });
  }
  static DF_INLINE F sub(F a, F b) {
    return each([&](int j) { return CudaLane::sub(a.v[j], b.v[j]); });
  }
  static DF_INLINE F mul_f(F a, F b) {
    return each([&](int j) { return CudaLane::mul_f(a.v[j], b.v[j]); });
  }
  static DF_INLINE F fma(F a, F b, F c) {
    return each([&](int j) { return CudaLane::fma(a.v[j], b.v[j], c.v[j]); });
  }
  static DF_INLINE F round_even(F a) {
    return each([&](int j) { return CudaLane::round_even(a.v[j]); });
  }
  static DF_INLINE F max_keep_nan(F bound, F x) {
    return each([&](int j) { return CudaLane::max_keep_nan(bound.v[j], x.v[j]); });
  }
  static DF_INLINE F min_keep_nan(F bound, F x) {
    return each([&](int j) { return CudaLane::min_keep_nan(bound.v[j], x.v[j]); });
  }
  static DF_INLINE F scale_by_power_of_two(F a, F n) {
    return each([&](int j) { return CudaLane::scale_by_power_of_two(a.v[j], n.v[j]); });
  }
  static DF_INLINE bool any_nan(F a) {
    bool any = false;
#pragma unroll
    for (int j = 0; j < N; ++j) any = any || a.v[j] != a.v[j];
    return any;
  }
};

// ---- memory -------------------------------------------------------------------------------------------
// Plain loads, never non-coherent ones: the state may be written in place. Where the dtype is a constant, the code of the other
// dtypes is compiled away.

constexpr uintptr_t kVectorBytes = 16;

DF_INLINE int64_t bytes_of(DType type) { return type == DType::kFloat32 ? 4 : 2; }

// N elements from element i on. Any address for N = 1, else a multiple of 16 bytes (of 8 for four elements of 16 bits).
template <int N>
DF_INLINE typename CudaVector<N>::F load(DType type, const void* base, int64_t i) {
  typename CudaVector<N>::F out;
  if (type == DType::kFloat32) {
    const float* at = static_cast<const float*>(base) + i;
    if constexpr (N == 1) {
      DF_ON_ACCESS(4);
      out.v[0] = *at;
    } else {
#pragma unroll
      for (int j = 0; j < N / 4; ++j) {
        DF_ON_ACCESS(16);
        const float4 four = reinterpret_cast<const float4*>(at)[j];
        out.v[4 * j] = four.x, out.v[4 * j + 1] = four.y, out.v[4 * j + 2] = four.z, out.v[4 * j + 3] = four.w;
      }
    }
    return out;
  }
  const uint16_t* at = static_cast<const uint16_t*>(base) + i;
  uint32_t half[N];
  DF_ON_ACCESS(2 * N);
  if constexpr (N == 1) {
    half[0] = *at;
  } else if constexpr (N == 4) {
    const uint2 words = *reinterpret_cast<const uint2*>(at);
    half[0] = words.x & 0xffffu, half[1] = words.x >> 16, half[2] = words.y & 0xffffu, half[3] = words.y >> 16;
  } else {
    static_assert(N == 8, "16 bytes");
    const uint4 words = *reinterpret_cast<const uint4*>(at);
    half[0] = words.x & 0xffffu, half[1] = words.x >> 16, half[2] = words.y & 0xffffu, half[3] = words.y >> 16;
    half[4] = words.z & 0xffffu, half[5] = words.z >> 16, half[6] = words.w & 0xffffu, half[7] = words.w >> 16;
  }
  if (type == DType::kFloat16)
    return CudaVector<N>::each([&](int j) { return CudaLane::from_f16(static_cast<uint16_t>(half[j])); });
  return CudaVector<N>::each([&](int j) { return CudaLane::from_bf16(static_cast<uint16_t>(half[j])); });
}

// The instruction by name: nvcc splits some assignments into four stores of 32 bits.
DF_INLINE void store_four(float4* at, float4 value) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(at)), "f"(value.x), "f"(value.y),
               "f"(value.z), "f"(value.w)
               : "memory");
#else
  *at = value;
#endif
}

template <int N>
DF_INLINE void store(DType type, void* base, int64_t i, const typename CudaVector<N>::F& value) {
  if (type == DType::kFloat32) {
    float* at = static_cast<float*>(base) + i;
    if constexpr (N == 1) {
      DF_ON_ACCESS(4);
      *at = value.v[0];
    } else {
#pragma unroll
      for (int j = 0; j < N / 4; ++j) {
        DF_ON_ACCESS(16);
        store_four(reinterpret_cast<float4*>(at) + j,
                   make_float4(value.v[4 * j], value.v[4 * j + 1], value.v[4 * j + 2], value.v[4 * j + 3]));
      }
    }
    return;
  }
  uint32_t half[N];
#pragma unroll
  for (int j = 0; j < N; ++j) half[j] = type == DType::kFloat16 ? CudaLane::to_f16(value.v[j]) : CudaLane::to_bf16(value.v[j]);
  uint16_t* at = static_cast<uint16_t*>(base) + i;
  DF_ON_ACCESS(2 * N);
  if constexpr (N == 1) {
    *at = static_cast<uint16_t>(half[0]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(at) = make_uint2(half[0] | half[1] << 16, half[2] | half[3] << 16);
  } else {
    static_assert(N == 8, "16 bytes");
    *reinterpret_cast<uint4*>(at) =
        make_uint4(half[0] | half[1] << 16, half[2] | half[3] << 16, half[4] | half[5] << 16, half[6] | half[7] << 16);
  }
}

}  // namespace
}  // namespace df
