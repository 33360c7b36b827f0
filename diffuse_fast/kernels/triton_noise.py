"""The noise of ``csrc/random`` in Triton: Philox4x32-10 words to standard normals, drawn in registers (noise version 1).

Operations, constants and their order are those of ``csrc/random/normal.h``, so the float32 bits are the same: explicit ``tl.fma``,
``tl.sqrt_rn`` (``tl.sqrt`` is an approximate instruction), no division. Loaded by :mod:`.triton` only.
"""

from __future__ import annotations

import triton
import triton.language as tl

_QUARTER_PI = tl.constexpr(float.fromhex("0x1.921fb6p-32"))  # pi/4 * 2**-31, rounded to float32
_UNIT = tl.constexpr(2.0**-31)
_HALF_UNIT = tl.constexpr(2.0**-32)
_ROUND = tl.constexpr(1.5 * 2.0**23)  # adding and subtracting it rounds to nearest even, for |x| < 2**22


@triton.jit
def words(seed, counter, row, index, stream: tl.constexpr):
    """The four words of each counter: uint32, of counter's shape (uint32)."""
    return tl.philox(seed, counter, row, index, stream)


@triton.jit
def log_unit(u):
    shifted = u.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    e = ((shifted >> 23) - 127).to(tl.float32)
    f = ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = tl.fma(f, 7.0376836292e-2, -1.1514610310e-1)
    p = tl.fma(p, f, 1.1676998740e-1)
    p = tl.fma(p, f, -1.2420140846e-1)
    p = tl.fma(p, f, 1.4249322787e-1)
    p = tl.fma(p, f, -1.6668057665e-1)
    p = tl.fma(p, f, 2.0000714765e-1)
    p = tl.fma(p, f, -2.4999993993e-1)
    p = tl.fma(p, f, 3.3333331174e-1)
    f2 = f * f
    y = f2 * f * p
    y = tl.fma(e, -2.12194440e-4, y)
    y = tl.fma(f2, -0.5, y)
    y = f + y
    return tl.fma(e, 0.693359375, y)


@triton.jit
def radius(u):
    unit = tl.fma((u >> 1).to(tl.int32).to(tl.float32), _UNIT, _HALF_UNIT)
    return tl.sqrt_rn(log_unit(unit) * -2.0)


@triton.jit
def direction(w):
    phi = (w << 2).to(tl.int32, bitcast=True).to(tl.float32) * _QUARTER_PI
    t = phi * phi
    s = tl.fma(t, -1.9515295891e-4, 8.3321608736e-3)
    s = tl.fma(s, t, -1.6666654611e-1)
    s = tl.fma(s * t, phi, phi)
    c = tl.fma(t, 2.443315711809948e-5, -1.388731625493765e-3)
    c = tl.fma(c, t, 4.166664568298827e-2)
    c = tl.fma(c, t * t, tl.fma(t, -0.5, 1.0))
    c = (c.to(tl.uint32, bitcast=True) ^ (w & 0x80000000)).to(tl.float32, bitcast=True)
    swap = (w & 0x40000000) != 0
    return tl.where(swap, s, c), tl.where(swap, c, s)


@triton.jit
def normals(seed, first, row, index, stream: tl.constexpr, BLOCK: tl.constexpr):
    """The BLOCK normals from counter ``first`` (uint32) on, in element order."""
    counter = first + tl.arange(0, BLOCK // 4).to(tl.uint32)
    w0, w1, w2, w3 = words(seed, counter, row, index, stream)
    # Axes (counter, pair); the pairs are (word 0, word 1) and (word 2, word 3).
    length = radius(tl.join(w0, w2))
    one, two = direction(tl.join(w1, w3))
    return tl.reshape(tl.join(length * one, length * two), [BLOCK])


@triton.jit
def exp_clipped(x):
    """exp(x) with x clipped to [-87, 88]; NaN is passed on."""
    held = tl.where(x < -87.0, -87.0, x)
    held = tl.where(held > 88.0, 88.0, held)
    n = (held * 1.44269504088896341 + _ROUND) - _ROUND
    r = tl.fma(n, -0.693359375, held)
    r = tl.fma(n, 2.12194440e-4, r)
    p = tl.fma(r, 1.9875691500e-4, 1.3981999507e-3)
    p = tl.fma(p, r, 8.3334519073e-3)
    p = tl.fma(p, r, 4.1665795894e-2)
    p = tl.fma(p, r, 1.6666665459e-1)
    p = tl.fma(p, r, 5.0000001201e-1)
    p = tl.fma(r * r, p, r)
    p = p + 1.0
    scaled = (p.to(tl.int32, bitcast=True) + (n.to(tl.int32) << 23)).to(tl.float32, bitcast=True)
    return tl.where(n == n, scaled, p)
