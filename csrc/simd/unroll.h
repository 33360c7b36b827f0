// Unrolled<V>: two vectors of V side by side, with V's interface. Every operation is applied to the first and to the second.
//
// Code written for Unrolled<V> compiles to two independent chains of instructions. A processor looks about a hundred
// instructions ahead, and the chain of one block of normals is about as long, so a single chain mostly waits for itself.

#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df {
namespace {

template <class V>
struct Unrolled {
  struct F {
    typename V::F a, b;
  };
  struct I {
    typename V::I a, b;
  };
  struct W {
    typename V::W a, b;
  };
  static constexpr int counters = 2 * V::counters;

  static DF_INLINE F set(float x) { return {V::set(x), V::set(x)}; }
  static DF_INLINE F add(F x, F y) { return {V::add(x.a, y.a), V::add(x.b, y.b)}; }
  static DF_INLINE F mul_f(F x, F y) { return {V::mul_f(x.a, y.a), V::mul_f(x.b, y.b)}; }
  static DF_INLINE F fma(F x, F y, F z) { return {V::fma(x.a, y.a, z.a), V::fma(x.b, y.b, z.b)}; }
  static DF_INLINE F minus_fma(F x, F y, F z) { return {V::minus_fma(x.a, y.a, z.a), V::minus_fma(x.b, y.b, z.b)}; }
  static DF_INLINE F sqrt(F x) { return {V::sqrt(x.a), V::sqrt(x.b)}; }

  static DF_INLINE I set_i(int32_t x) { return {V::set_i(x), V::set_i(x)}; }
  static DF_INLINE I bits(F x) { return {V::bits(x.a), V::bits(x.b)}; }
  static DF_INLINE F from_bits(I x) { return {V::from_bits(x.a), V::from_bits(x.b)}; }
  static DF_INLINE F to_float(I x) { return {V::to_float(x.a), V::to_float(x.b)}; }
  static DF_INLINE F exponent(I x) { return {V::exponent(x.a), V::exponent(x.b)}; }
  static DF_INLINE I add_i(I x, I y) { return {V::add_i(x.a, y.a), V::add_i(x.b, y.b)}; }
  static DF_INLINE I and_i(I x, I y) { return {V::and_i(x.a, y.a), V::and_i(x.b, y.b)}; }
  static DF_INLINE I xor_i(I x, I y) { return {V::xor_i(x.a, y.a), V::xor_i(x.b, y.b)}; }
  static DF_INLINE I shr_i(I x, int n) { return {V::shr_i(x.a, n), V::shr_i(x.b, n)}; }
  static DF_INLINE I shl_i(I x, int n) { return {V::shl_i(x.a, n), V::shl_i(x.b, n)}; }
  static DF_INLINE F flip_if_bit31(I w, F x) { return {V::flip_if_bit31(w.a, x.a), V::flip_if_bit31(w.b, x.b)}; }
  static DF_INLINE void swap_if_bit30(I w, F& x, F& y) {
    V::swap_if_bit30(w.a, x.a, y.a);
    V::swap_if_bit30(w.b, x.b, y.b);
  }

  static DF_INLINE W wide(uint32_t x) { return {V::wide(x), V::wide(x)}; }
  static DF_INLINE W counter(uint64_t first) { return {V::counter(first), V::counter(first + V::counters)}; }
  static DF_INLINE W mul(W x, W y) { return {V::mul(x.a, y.a), V::mul(x.b, y.b)}; }
  static DF_INLINE W high(W x) { return {V::high(x.a), V::high(x.b)}; }
  static DF_INLINE W xor3(W x, W y, W z) { return {V::xor3(x.a, y.a, z.a), V::xor3(x.b, y.b, z.b)}; }
  static DF_INLINE W low_pair(W x, W y) { return {V::low_pair(x.a, y.a), V::low_pair(x.b, y.b)}; }
  static DF_INLINE W high_pair(W x, W y) { return {V::high_pair(x.a, y.a), V::high_pair(x.b, y.b)}; }
  static DF_INLINE W wide_pair(uint32_t low, uint32_t high) { return {V::wide_pair(low, high), V::wide_pair(low, high)}; }
  static DF_INLINE I words(W x) { return {V::words(x.a), V::words(x.b)}; }
  template <class Z>
  static DF_INLINE void interleave(F x, F y, Z* z) {
    V::interleave(x.a, y.a, z);
    V::interleave(x.b, y.b, z + V::counters * 4 / kFloats<Z>);
  }

 private:
  template <class Z>
  static constexpr int kFloats = sizeof(Z) / sizeof(float);
};

}  // namespace
}  // namespace df
