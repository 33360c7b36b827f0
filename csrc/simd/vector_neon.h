// Four floats at a time: NEON on AArch64.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "simd/host_device.h"

namespace df {
namespace {

struct Vector {
  using F = float32x4_t;
  using I = int32x4_t;
  using W = uint64x2_t;
  static constexpr int width = 4;
  static constexpr int counters = 2;

  static DF_INLINE F set(float x) { return vdupq_n_f32(x); }
  static DF_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
  static DF_INLINE F sub(F a, F b) { return vsubq_f32(a, b); }
  static DF_INLINE F mul_f(F a, F b) { return vmulq_f32(a, b); }
  static DF_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static DF_INLINE F minus_fma(F a, F b, F c) { return vfmsq_f32(vnegq_f32(c), a, b); }  // -(a * b) - c
  static DF_INLINE F sqrt(F a) { return vsqrtq_f32(a); }
  static DF_INLINE F div(F a, F b) { return vdivq_f32(a, b); }
  static DF_INLINE F floor(F a) { return vrndmq_f32(a); }
  static DF_INLINE F ceil(F a) { return vrndpq_f32(a); }
  static DF_INLINE F select_nan(F a, F x, F y) { return vbslq_f32(vceqq_f32(a, a), y, x); }
  static DF_INLINE F select_less(F a, F b, F x, F y) { return vbslq_f32(vcltq_f32(a, b), x, y); }
  static DF_INLINE I to_int(F a) { return vcvtnq_s32_f32(a); }
  static DF_INLINE F round_even(F a) { return vrndnq_f32(a); }
  static DF_INLINE F max_keep_nan(F bound, F x) { return vbslq_f32(vcltq_f32(x, bound), bound, x); }
  static DF_INLINE F min_keep_nan(F bound, F x) { return vbslq_f32(vcgtq_f32(x, bound), bound, x); }
  static DF_INLINE bool any_nan(F a) { return vminvq_u32(vceqq_f32(a, a)) == 0; }

  static DF_INLINE I set_i(int32_t x) { return vdupq_n_s32(x); }
  static DF_INLINE I bits(F a) { return vreinterpretq_s32_f32(a); }
  static DF_INLINE F from_bits(I a) { return vreinterpretq_f32_s32(a); }
  static DF_INLINE F to_float(I a) { return vcvtq_f32_s32(a); }
  static DF_INLINE I add_i(I a, I b) { return vaddq_s32(a, b); }
  static DF_INLINE I sub_i(I a, I b) { return vsubq_s32(a, b); }
  static DF_INLINE I and_i(I a, I b) { return vandq_s32(a, b); }
  static DF_INLINE I xor_i(I a, I b) { return veorq_s32(a, b); }
  static DF_INLINE I shr_i(I a, int n) { return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n))); }
  static DF_INLINE I shl_i(I a, int n) { return vshlq_s32(a, vdupq_n_s32(n)); }
  // The exponent of positive, normal float bits, unbiased.
  static DF_INLINE F exponent(I a) { return to_float(sub_i(shr_i(a, 23), set_i(127))); }
  static DF_INLINE F scale_by_power_of_two(F a, F n) { return from_bits(vaddq_s32(bits(a), vshlq_n_s32(vcvtq_s32_f32(n), 23))); }
  static DF_INLINE F flip_if_bit31(I w, F a) { return from_bits(xor_i(bits(a), and_i(w, set_i(INT32_MIN)))); }
  static DF_INLINE void swap_if_bit30(I w, F& a, F& b) {
    const uint32x4_t swap = vtstq_s32(w, set_i(0x40000000));
    const F first = vbslq_f32(swap, b, a);
    b = vbslq_f32(swap, a, b);
    a = first;
  }

  static DF_INLINE W wide(uint32_t x) { return vdupq_n_u64(x); }
  static DF_INLINE W counter(uint64_t first) { return vcombine_u64(vcreate_u64(first), vcreate_u64(first + 1)); }
  static DF_INLINE W mul(W a, W b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
  static DF_INLINE W high(W a) { return vshrq_n_u64(a, 32); }
  static DF_INLINE W xor3(W a, W b, W c) { return veorq_u64(veorq_u64(a, b), c); }
  // Low halves of a and b side by side, and high halves.
  static DF_INLINE W low_pair(W a, W b) {
    return vreinterpretq_u64_u32(vtrn1q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b)));
  }
  static DF_INLINE W high_pair(W a, W b) {
    return vreinterpretq_u64_u32(vtrn2q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b)));
  }
  static DF_INLINE W wide_pair(uint32_t low, uint32_t high) { return vdupq_n_u64(low | static_cast<uint64_t>(high) << 32); }
  static DF_INLINE I words(W a) { return vreinterpretq_s32_u64(a); }
  static DF_INLINE void interleave(F a, F b, F* z) {
    z[0] = vzip1q_f32(a, b);
    z[1] = vzip2q_f32(a, b);
  }

  static DF_INLINE F load(const float* p) { return vld1q_f32(p); }
  static DF_INLINE void store(float* p, F a) { vst1q_f32(p, a); }

  static DF_INLINE F load_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static DF_INLINE void store_f16(uint16_t* p, F a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a))); }

  static DF_INLINE F load_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  static DF_INLINE void store_bf16(uint16_t* p, F a) {
    const uint32x4_t u = vreinterpretq_u32_f32(a), top = vshrq_n_u32(u, 16);
    const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(u, vaddq_u32(vandq_u32(top, vdupq_n_u32(1)), vdupq_n_u32(0x7fff))), 16);
    const uint32x4_t number = vceqq_f32(a, a);
    vst1_u16(p, vmovn_u32(vbslq_u32(number, rounded, vorrq_u32(top, vdupq_n_u32(0x40)))));
  }
};

}  // namespace
}  // namespace df
