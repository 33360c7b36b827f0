// Standard normals from 32-bit words by the Box-Muller transform: noise version 1.
//
// A pair of words (u, w) gives a pair of normals (z0, z1) = radius(u) * direction(w). The four words of a counter give
// the elements 4i, 4i+1 = pair(word 0, word 1) and 4i+2, 4i+3 = pair(word 2, word 3).
//
//   radius     sqrt(-2 ln U),  U = (u >> 1) * 2^-31 + 2^-32, rounded to float32: in (0, 1], so |z| <= 6.66
//   direction  a point of the unit circle: phi = pi/4 * (int32(w << 2) * 2^-31) in [-pi/4, pi/4); C = cos phi, S = sin phi;
//              bit 31 of w flips the sign of C, bit 30 swaps the two: (C, S) or (S, C)
//
// These definitions, the polynomials and the order of the operations below are part of the contract: every implementation
// gives the same float32 bits. So: explicit fma, square root rounded to nearest, no division, no approximate instruction.
// Any change needs a new noise version and a new major version of the library.

#pragma once

#include <cstdint>

#include "simd/host_device.h"

namespace df {

inline constexpr int kNoiseVersion = 1;

// -2 ln(U) for U in (0, 1], as U = 2^e * m with m in [sqrt(1/2), sqrt(2)) and f = m - 1:
// ln U = e ln2 + f - f^2/2 + f^3 P(f). P is the Cephes logf polynomial. Absolute error of the logarithm < 1.2e-7 * max(1, |ln U|).
//
// The code computes g = 2f and a scaled P. Scaling by powers of two is exact and saves operations, so the bits are those of:
// f = m - 1, the polynomial, y = f^3 P, y += -2.12194440e-4 e, y += -1/2 f^2, y = f + y, ln U = 0.693359375 e + y (every +=
// one fma), and a product with -2.
template <class V>
DF_INLINE typename V::F minus_two_log(typename V::F u) {
  using F = typename V::F;
  // Adding 1 - sqrt(1/2) in bit space carries into the exponent exactly when the mantissa is at least sqrt(2).
  const auto shifted = V::add_i(V::bits(u), V::set_i(0x3f800000 - 0x3f3504f3));
  const F e = V::exponent(shifted);
  // The exponent's complement is that of 2^(1 - e); g = 2m - 2 is exact.
  const auto twice_over_2e = V::and_i(V::xor_i(shifted, V::set_i(-1)), V::set_i(0x7f800000));
  const F g = V::fma(u, V::from_bits(twice_over_2e), V::set(-2.0f));
  F p = V::set(7.0376836292e-2f * 0x1p-10f);
  p = V::fma(p, g, V::set(-1.1514610310e-1f * 0x1p-9f));
  p = V::fma(p, g, V::set(1.1676998740e-1f * 0x1p-8f));
  p = V::fma(p, g, V::set(-1.2420140846e-1f * 0x1p-7f));
  p = V::fma(p, g, V::set(1.4249322787e-1f * 0x1p-6f));
  p = V::fma(p, g, V::set(-1.6668057665e-1f * 0x1p-5f));
  p = V::fma(p, g, V::set(2.0000714765e-1f * 0x1p-4f));
  p = V::fma(p, g, V::set(-2.4999993993e-1f * 0x1p-3f));
  p = V::fma(p, g, V::set(3.3333331174e-1f * 0x1p-2f));
  const F g2 = V::mul_f(g, g);
  F y = V::mul_f(V::mul_f(g2, g), p);
  y = V::fma(e, V::set(2.0f * -2.12194440e-4f), y);  // ln2 = 0.693359375 - 2.12194440e-4
  y = V::fma(V::set(-0.25f), g2, y);
  y = V::add(g, y);
  // At U = 1 all terms are +0, so the result and its root are -0, on every implementation.
  return V::minus_fma(e, V::set(2.0f * 0.693359375f), y);
}

template <class V>
DF_INLINE typename V::F normal_radius(typename V::I u) {
  const auto unit = V::fma(V::to_float(V::shr_i(u, 1)), V::set(0x1p-31f), V::set(0x1p-32f));
  return V::sqrt(minus_two_log<V>(unit));
}

// sin and cos of phi in [-pi/4, pi/4]: the Cephes sinf and cosf polynomials, error below 1e-7.
template <class V>
DF_INLINE void normal_direction(typename V::I w, typename V::F& first, typename V::F& second) {
  using F = typename V::F;
  const F phi = V::mul_f(V::to_float(V::shl_i(w, 2)), V::set(0x1.921fb6p-32f));  // pi/4 * 2^-31
  const F t = V::mul_f(phi, phi);
  F s = V::fma(t, V::set(-1.9515295891e-4f), V::set(8.3321608736e-3f));
  s = V::fma(s, t, V::set(-1.6666654611e-1f));
  s = V::fma(V::mul_f(s, t), phi, phi);
  F c = V::fma(t, V::set(2.443315711809948e-5f), V::set(-1.388731625493765e-3f));
  c = V::fma(c, t, V::set(4.166664568298827e-2f));
  c = V::fma(c, V::mul_f(t, t), V::fma(V::set(-0.5f), t, V::set(1.0f)));
  c = V::flip_if_bit31(w, c);
  V::swap_if_bit30(w, c, s);
  first = c;
  second = s;
}

// exp(x) for a learned standard deviation: 2^n * exp(r), the Cephes expf polynomial, relative error below 2e-7.
// x is clipped to [-87, 88], where the result is a normal float32. NaN is passed on.
template <class V>
DF_INLINE typename V::F exp_clipped(typename V::F x) {
  using F = typename V::F;
  const F clipped = V::min_keep_nan(V::set(88.0f), V::max_keep_nan(V::set(-87.0f), x));
  const F n = V::round_even(V::mul_f(clipped, V::set(1.44269504088896341f)));
  F r = V::fma(n, V::set(-0.693359375f), clipped);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  F p = V::fma(V::set(1.9875691500e-4f), r, V::set(1.3981999507e-3f));
  p = V::fma(p, r, V::set(8.3334519073e-3f));
  p = V::fma(p, r, V::set(4.1665795894e-2f));
  p = V::fma(p, r, V::set(1.6666665459e-1f));
  p = V::fma(p, r, V::set(5.0000001201e-1f));
  p = V::fma(V::mul_f(r, r), p, r);
  p = V::add(p, V::set(1.0f));
  return V::scale_by_power_of_two(p, n);
}

}  // namespace df
