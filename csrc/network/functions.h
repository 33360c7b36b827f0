// Functions on vectors of floats: the same bits on every instruction set, because all of it is the same chain of operations.
//
// Largest error in units of the last place, over all floats with infinities and denormals, as tests/cpp/test_functions.cpp measures
// it against long double:
//
//   exp 1.1, log 0.9, tanh 1.8, erf 1.3, sigmoid 2.6, softplus 1.8, sin and cos 1.5, silu 3.1, mish 3.4
//
// Below -87 silu and mish are a denormal times their argument, with an absolute error of 2^-141.
//
// The error of gelu and gelu_tanh is at most 5 units of 2^-23 max(|result|, |x| / 16). NaN gives NaN. The polynomials are minimax,
// fitted to the relative error of the function with the Remez algorithm.
//
// For sources that are compiled once per instruction set.

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "network/program.h"
#include "simd/simd.h"

namespace df::network {
namespace {

using V = Vector;
using I = Vector::I;

DF_INLINE F constant(float x) { return V::set(x); }
DF_INLINE F negate(F x) { return V::from_bits(V::xor_i(V::bits(x), V::set_i(INT32_MIN))); }
DF_INLINE F absolute(F x) { return V::from_bits(V::and_i(V::bits(x), V::set_i(INT32_MAX))); }
DF_INLINE F with_sign_of(F magnitude, F x) {
  return V::from_bits(V::xor_i(V::bits(magnitude), V::and_i(V::bits(x), V::set_i(INT32_MIN))));
}
// NaN where x is NaN.
DF_INLINE F larger(float bound, F x) { return V::max_keep_nan(constant(bound), x); }
DF_INLINE F smaller(float bound, F x) { return V::min_keep_nan(constant(bound), x); }
// NaN where either is NaN.
DF_INLINE F maximum(F a, F b) { return V::select_nan(a, a, V::max_keep_nan(a, b)); }

// c[0] + c[1] x + c[2] x^2 + ...
template <int n>
DF_INLINE F polynomial(F x, const float (&c)[n]) {
  F sum = constant(c[n - 1]);
  for (int i = n - 2; i >= 0; --i) sum = V::fma(sum, x, constant(c[i]));
  return sum;
}

// 2^n for whole n from -126 to 127.
DF_INLINE F power_of_two(F n) { return V::from_bits(V::shl_i(V::add_i(V::to_int(n), V::set_i(127)), 23)); }

DF_INLINE F exp(F x) {
  x = smaller(89.0f, larger(-104.0f, x));
  const F n = V::round_even(V::mul_f(x, constant(0x1.715476p+0f)));
  F r = V::fma(n, constant(-0x1.62e400p-1f), x);
  r = V::fma(n, constant(-0x1.7f7d1cp-20f), r);
  const float c[] = {0x1.fffffcp-2f, 0x1.555490p-3f, 0x1.5558f4p-5f, 0x1.123a6cp-7f, 0x1.6a2352p-10f};
  const F p = V::add(V::fma(V::mul_f(r, r), polynomial(r, c), r), constant(1.0f));
  // In two factors: 2^n itself may be too large or denormal.
  const F half = V::floor(V::mul_f(n, constant(0.5f)));
  return V::mul_f(V::mul_f(p, power_of_two(half)), power_of_two(V::sub(n, half)));
}

// 2 atanh(s) / s for small z = s^2, less 2.
DF_INLINE F atanh_tail(F z) {
  const float c[] = {0x1.555556p-1f, 0x1.9999bep-2f, 0x1.248a56p-2f, 0x1.c8bc16p-3f, 0x1.5f3020p-3f, 0x1.be4ee6p-3f};
  return V::mul_f(z, polynomial(z, c));
}

DF_INLINE F log(F x) {
  const F tiny = constant(0x1p-126f), infinity = constant(INFINITY);
  const F scaled = V::select_less(x, tiny, V::mul_f(x, constant(0x1p24f)), x);
  F e = V::select_less(x, tiny, constant(-24.0f), constant(0.0f));
  // Mantissa from sqrt(1/2) to sqrt(2).
  const I shifted = V::sub_i(V::bits(scaled), V::set_i(0x3f3504f3));
  const I exponent = V::sub_i(V::shr_i(V::add_i(shifted, V::set_i(0x40000000)), 23), V::set_i(128));
  const F m = V::from_bits(V::add_i(V::and_i(shifted, V::set_i(0x007fffff)), V::set_i(0x3f3504f3)));
  e = V::add(e, V::to_float(exponent));
  const F f = V::sub(m, constant(1.0f)), s = V::div(f, V::add(m, constant(1.0f)));
  // log m = f - s (f - tail): f is exact, so the error is that of the small rest.
  const F rest = V::mul_f(s, V::sub(f, atanh_tail(V::mul_f(s, s))));
  F y = V::fma(e, constant(0x1.7f7d1cp-20f), negate(rest));
  y = V::fma(e, constant(0x1.62e400p-1f), V::add(f, y));
  y = V::select_less(x, infinity, y, x);                                                                       // inf and NaN
  y = V::select_less(constant(0.0f), absolute(x), y, V::select_less(absolute(x), tiny, negate(infinity), y));  // log 0
  return V::select_less(x, constant(0.0f), constant(NAN), y);
}

// log(1 + u) for u from 0 to 1.
DF_INLINE F log1p_unit(F u) {
  const F s = V::div(u, V::add(u, constant(2.0f)));
  return V::sub(u, V::mul_f(s, V::sub(u, atanh_tail(V::mul_f(s, s)))));
}

DF_INLINE F tanh(F x) {
  const F a = absolute(x), z = V::mul_f(x, x);
  const float c[] = {-0x1.555554p-2f, 0x1.111066p-3f, -0x1.b9ee90p-5f, 0x1.638b58p-6f, -0x1.0bf4fcp-7f, 0x1.18e1dep-9f};
  const F small = V::fma(V::mul_f(x, z), polynomial(z, c), x);
  const F e = exp(V::add(a, a));
  const F large = V::sub(constant(1.0f), V::div(constant(2.0f), V::add(e, constant(1.0f))));
  return V::select_less(a, constant(0.625f), small, with_sign_of(large, x));
}

DF_INLINE F erf(F x) {
  const F a = absolute(x), z = V::mul_f(x, x);
  const float c[] = {0x1.06eba8p-3f, -0x1.812742p-2f,  0x1.ce2df4p-4f, -0x1.b80cb4p-6f,
                     0x1.54b5e4p-8f, -0x1.a99ef6p-11f, 0x1.5ac32ep-14f};
  const F small = V::fma(x, polynomial(z, c), x);
  const float tail[] = {-0x1.20ee5cp+0f, -0x1.4538aep-1f, -0x1.b2d3d2p-4f, 0x1.84362ap-6f,
                        -0x1.d936c6p-9f, 0x1.4a26acp-12f, -0x1.5e1266p-17f};
  const F t = smaller(4.0f, a);
  const F large = V::sub(constant(1.0f), exp(V::mul_f(t, polynomial(t, tail))));
  return V::select_less(a, constant(0.9375f), small, with_sign_of(large, x));
}

// e^-|x|, and from it the functions that are built of e^x.
DF_INLINE F exp_of_minus(F x) { return exp(negate(absolute(x))); }

DF_INLINE F sigmoid(F x) {
  const F e = exp_of_minus(x);
  return V::div(V::select_less(x, constant(0.0f), e, constant(1.0f)), V::add(constant(1.0f), e));
}

DF_INLINE F silu(F x) {
  const F e = exp_of_minus(x);
  return V::div(V::select_less(x, constant(0.0f), V::mul_f(x, e), x), V::add(constant(1.0f), e));
}

DF_INLINE F softplus(F x) { return V::add(larger(0.0f, x), log1p_unit(exp_of_minus(x))); }

// x tanh(log(1 + e)) with e = e^x is x n / (n + 2) with n = e (e + 2).
DF_INLINE F mish(F x) {
  const F limit = constant(20.0f);  // from here on the quotient is 1
  const F e = exp(smaller(20.0f, x));
  const F n = V::mul_f(e, V::add(e, constant(2.0f)));
  return V::select_less(x, limit, V::div(V::mul_f(x, n), V::add(n, constant(2.0f))), x);
}

DF_INLINE F gelu(F x) {
  const F half = V::mul_f(x, constant(0.5f));
  return V::fma(half, erf(V::mul_f(x, constant(0x1.6a09e6p-1f))), half);
}

DF_INLINE F gelu_tanh(F x) {
  // x^3 in an order that does not overflow before tanh saturates.
  const F inner = V::mul_f(V::mul_f(x, constant(0x1.988454p-1f)), V::fma(V::mul_f(x, x), constant(0.044715f), constant(1.0f)));
  const F half = V::mul_f(x, constant(0.5f));
  return V::fma(half, tanh(inner), half);
}

// ---- sine and cosine ----------------------------------------------------------------------------

// x - n pi/2 and n mod 4 for |x| up to 4e6: the first product is exact, because the difference is a multiple of 2^-23 below 1.
// Above, one lane at a time with integers: the product of the 24-bit mantissa and the bits of 2/pi that matter.
constexpr float kLargestReduced = 4e6f;

inline float reduce_large(float x, int32_t& quadrant) {
  // The bits of 2/pi behind the point.
  constexpr uint32_t kTwoOverPi[] = {0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu};
  const uint32_t bits = std::bit_cast<uint32_t>(x), mantissa = (bits & 0x7fffffu) | 0x800000u;
  const int shift = static_cast<int>((bits >> 23) & 0xff) - 150;  // |x| = mantissa * 2^shift, shift from -2 to 104
  // 96 bits of 2/pi, from the first one that does not only add whole turns.
  const int from = shift > 2 ? shift - 2 : 0;
  const auto word = [&](int i) {
    const int bit = from + 32 * i, at = bit / 32, rest = bit % 32;
    const uint64_t pair = static_cast<uint64_t>(at < 7 ? kTwoOverPi[at] : 0) << 32 | (at + 1 < 7 ? kTwoOverPi[at + 1] : 0);
    return static_cast<uint32_t>(pair << rest >> 32);
  };
  const unsigned __int128 fraction = static_cast<unsigned __int128>(word(0)) << 64 | static_cast<uint64_t>(word(1)) << 32 | word(2);
  const unsigned __int128 product = fraction * mantissa;
  const int point = 96 + from - shift;  // bits behind the point
  const auto turns = static_cast<uint32_t>(product >> point);
  unsigned __int128 rest = product & ((static_cast<unsigned __int128>(1) << point) - 1);
  const bool up = rest >> (point - 1) != 0;  // the nearest quarter turn is above
  if (up) rest = (static_cast<unsigned __int128>(1) << point) - rest;
  int lead = 0;
  while (lead < 60 && rest >> (point - 1 - lead) == 0) ++lead;
  // The leading 53 bits as a double.
  const int keep = point - lead > 53 ? point - lead - 53 : 0;
  double r = static_cast<double>(static_cast<uint64_t>(rest >> keep));
  for (int i = 0; i < point - keep; ++i) r *= 0.5;
  r *= 1.5707963267948966;
  if (up) r = -r;
  quadrant = static_cast<int32_t>(turns + (up ? 1 : 0));
  if (bits >> 31) {
    r = -r;
    quadrant = -quadrant;
  }
  return static_cast<float>(r);
}

DF_INLINE F reduce_angle(F x, I& quadrant) {
  const F n = V::round_even(V::mul_f(x, constant(0x1.45f306p-1f)));
  F r = V::fma(n, constant(-0x1.921fb6p+0f), x);
  r = V::fma(n, constant(0x1.777a5cp-25f), r);
  r = V::fma(n, constant(0x1.ee59dap-50f), r);
  quadrant = V::to_int(V::select_less(absolute(n), constant(4e6f), n, constant(0.0f)));
  // NaN if a lane is above the limit.
  if (V::any_nan(V::select_less(absolute(x), constant(kLargestReduced), constant(0.0f), constant(NAN)))) {
    alignas(64) float values[kWidth], reduced[kWidth];
    alignas(64) float turns[kWidth];
    V::store(values, x);
    V::store(reduced, r);
    V::store(turns, V::to_float(V::and_i(quadrant, V::set_i(3))));
    for (int i = 0; i < kWidth; ++i) {
      const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu);
      if (a < kLargestReduced) continue;
      if (!(a < INFINITY)) {
        reduced[i] = NAN;
        continue;
      }
      int32_t q;
      reduced[i] = reduce_large(values[i], q);
      turns[i] = static_cast<float>(q & 3);
    }
    r = V::load(reduced);
    quadrant = V::to_int(V::load(turns));
  }
  return r;
}

DF_INLINE F sine_of_turn(F r, I quadrant) {
  const F z = V::mul_f(r, r);
  const float s[] = {-0x1.555556p-3f, 0x1.111108p-7f, -0x1.a00f32p-13f, 0x1.6cbecep-19f};
  const float c[] = {0x1.555556p-5f, -0x1.6c16b8p-10f, 0x1.a010c4p-16f, -0x1.2417e0p-22f};
  const F sine = V::fma(V::mul_f(r, z), polynomial(z, s), r);
  const F half = V::mul_f(z, constant(0.5f)), w = V::sub(constant(1.0f), half);
  // 1 - half with the error of the subtraction added back.
  const F error = V::sub(V::sub(constant(1.0f), w), half);
  const F cosine = V::add(w, V::fma(V::mul_f(z, z), polynomial(z, c), error));
  const F odd = V::to_float(V::and_i(quadrant, V::set_i(1)));
  const F y = V::select_less(odd, constant(0.5f), sine, cosine);
  return V::from_bits(V::xor_i(V::bits(y), V::shl_i(V::and_i(quadrant, V::set_i(2)), 30)));
}

DF_INLINE F sin(F x) {
  I quadrant;
  const F r = reduce_angle(x, quadrant);
  // sin x is x for tiny x, with its sign at zero.
  return V::select_less(absolute(x), constant(0x1p-13f), x, sine_of_turn(r, quadrant));
}

DF_INLINE F cos(F x) {
  I quadrant;
  const F r = reduce_angle(x, quadrant);
  return sine_of_turn(r, V::add_i(quadrant, V::set_i(1)));
}

// ---- powers -------------------------------------------------------------------------------------

// One lane in double: log and exp by series that are exact to float32. Rare, so not vectorised.
inline float power_lane(float x, float y) {
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y != y) return NAN;
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
  const float b = std::bit_cast<float>(std::bit_cast<uint32_t>(y) & 0x7fffffffu);
  const bool whole = b >= 0x1p24f || static_cast<float>(static_cast<int32_t>(y)) == y;
  const bool odd = whole && b < 0x1p24f && (static_cast<int32_t>(b) & 1);
  const bool negative = std::bit_cast<uint32_t>(x) >> 31;
  const float sign = negative && odd ? -1.0f : 1.0f;
  if (a == 0.0f) return y > 0 ? sign * 0.0f : sign * INFINITY;
  if (a == INFINITY) return y > 0 ? sign * INFINITY : sign * 0.0f;
  if (negative && !whole) return NAN;
  if (b == INFINITY) return a == 1.0f ? 1.0f : (a > 1.0f) == (y > 0) ? INFINITY : 0.0f;
  // log2 a
  uint64_t bits = std::bit_cast<uint64_t>(static_cast<double>(a));
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double series = 0.0;
  for (int k = 25; k >= 1; k -= 2) series = series * z + 1.0 / k;
  const double log2 = exponent + 2.0 * s * series * 1.4426950408889634;
  // 2^(y log2 a)
  double e = static_cast<double>(y) * log2;
  if (e > 200.0) return sign * INFINITY;
  if (e < -200.0) return sign * 0.0f;
  const auto n = static_cast<int>(e < 0 ? e - 0.5 : e + 0.5);
  const double r = (e - n) * 0.6931471805599453;
  double sum = 1.0;
  for (int k = 14; k >= 1; --k) sum = 1.0 + r / k * sum;
  return sign * static_cast<float>(sum * std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52));
}

DF_INLINE F power(F x, F y) {
  alignas(64) float a[kWidth], b[kWidth];
  V::store(a, x);
  V::store(b, y);
  for (int i = 0; i < kWidth; ++i) a[i] = power_lane(a[i], b[i]);
  return V::load(a);
}

// ---- by name ------------------------------------------------------------------------------------

// The function as a template argument of nothing: loops over a row of channels are written once and compiled for each.
DF_INLINE F apply_unary(Unary function, F x, F parameter) {
  const F zero = constant(0.0f), one = constant(1.0f);
  switch (function) {
    case Unary::kAbs: return absolute(x);
    case Unary::kCeil: return V::ceil(x);
    case Unary::kCos: return cos(x);
    case Unary::kElu: {
      // e^x - 1 as tanh(x/2) (e^x + 1), which keeps small x.
      const F low = smaller(0.0f, x);
      const F minus_one = V::mul_f(tanh(V::mul_f(low, constant(0.5f))), V::add(exp(low), one));
      return V::select_less(zero, x, x, V::mul_f(parameter, minus_one));
    }
    case Unary::kErf: return erf(x);
    case Unary::kExp: return exp(x);
    case Unary::kFloor: return V::floor(x);
    case Unary::kGelu: return gelu(x);
    case Unary::kGeluTanh: return gelu_tanh(x);
    case Unary::kHardSigmoid: return smaller(1.0f, larger(0.0f, V::fma(x, constant(1.0f / 6.0f), constant(0.5f))));
    case Unary::kLeakyRelu: return V::select_less(x, zero, V::mul_f(x, parameter), x);
    case Unary::kLog: return log(x);
    case Unary::kMish: return mish(x);
    case Unary::kNegate: return negate(x);
    case Unary::kReciprocal: return V::div(one, x);
    case Unary::kRelu: return larger(0.0f, x);
    case Unary::kRound: return V::round_even(x);
    case Unary::kRsqrt: return V::div(one, V::sqrt(x));
    case Unary::kSigmoid: return sigmoid(x);
    case Unary::kSilu: return silu(x);
    case Unary::kSin: return sin(x);
    case Unary::kSoftplus: return softplus(x);
    case Unary::kSqrt: return V::sqrt(x);
    case Unary::kTanh: return tanh(x);
    case Unary::kCount: break;
  }
  return x;
}

DF_INLINE F apply_binary(Binary function, F x, F y) {
  switch (function) {
    case Binary::kAdd: return V::add(x, y);
    case Binary::kSubtract: return V::sub(x, y);
    case Binary::kReverseSubtract: return V::sub(y, x);
    case Binary::kMultiply: return V::mul_f(x, y);
    case Binary::kDivide: return V::div(x, y);
    case Binary::kReverseDivide: return V::div(y, x);
    case Binary::kPower: return power(x, y);
    case Binary::kMaximum: return maximum(x, y);
    case Binary::kMinimum: return negate(maximum(negate(x), negate(y)));
    case Binary::kCount: break;
  }
  return x;
}

}  // namespace
}  // namespace df::network
