"""The forward process of ``csrc/step/forward.h`` in Triton: one program per piece of a sample. Loaded by :mod:`.triton`.

12 bytes per element: x0 is read, x_t and the target are written; the noise is made in registers. The arithmetic is that of the
CPU's pass to the bit: a first term that is a product, a second that is fused onto it, no term whose coefficient is 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_noise import normals
from .triton_step import here

# 32-bit words per sample: alpha, sigma, the target's weights of x0 and z, the index, the halves of the seed, the training step.
TOLD = 8
_TOLD = tl.constexpr(TOLD)
_STREAM_TRAINING = tl.constexpr(3)


@triton.jit
def combined(a, x, b, z):
    """a*x + b*z; a sum starts as -0, so that its first term is a product, rounded once, with the sign of a zero kept."""
    nothing = tl.full(x.shape, -0.0, tl.float32)
    total = tl.where(a != 0.0, tl.fma(a, x, nothing), nothing)
    total = tl.where(b != 0.0, tl.fma(b, z, total), total)
    return tl.where((a != 0.0) | (b != 0.0), total, 0.0)


@triton.jit
def word(told, number: tl.constexpr):
    return tl.load(told + number).to(tl.uint32, bitcast=True)


@triton.jit
def coefficient(told, number: tl.constexpr):
    return tl.load(told + number).to(tl.float32, bitcast=True)


@triton.jit
def forward_kernel(
    x0,
    noise,
    x_t,
    target,
    told,
    samples,
    elements,
    GIVEN: tl.constexpr,
    AIMED: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """x_t, and the target where it is AIMED at.

    Args:
        x0, noise, x_t, target: float32, (samples, elements). GIVEN: whether the noise is read, and not made.
        told: int32, ``TOLD`` words per sample, as bits.
        WHOLE: no piece has a part outside the sample.
    """
    piece, sample = here()
    samples = tl.to_tensor(samples).to(tl.int64)  # the number 1 arrives as a constant
    if sample >= samples:
        return
    row = told + sample * _TOLD
    base = piece * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = None if WHOLE else lane < tl.minimum(elements - base, BLOCK).to(tl.int32)
    at = sample * elements + base
    x = tl.load(x0 + at + lane, mask=inside)
    if GIVEN:
        z = tl.load(noise + at + lane, mask=inside)
    else:
        seed = word(row, 5).to(tl.uint64) | (word(row, 6).to(tl.uint64) << 32)
        z = normals(seed, (piece * (BLOCK // 4)).to(tl.uint32), word(row, 7), word(row, 4), _STREAM_TRAINING, BLOCK)
    tl.store(x_t + at + lane, combined(coefficient(row, 0), x, coefficient(row, 1), z), mask=inside)
    if AIMED:
        tl.store(target + at + lane, combined(coefficient(row, 2), x, coefficient(row, 3), z), mask=inside)
